#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "runtime/execute/device.h"

namespace annulus {

/// How float products are computed.
enum class FloatProducts : std::uint8_t {
  exact,  ///< in f32
  tf32,   ///< operands rounded to 10 bits of mantissa
};

struct CudaOptions {
  int ordinal = 0;  ///< of the GPU, among those that the process sees
  FloatProducts float_products = FloatProducts::exact;
  /// Told what a user may want to know of how ops are carried out, each thing once.
  std::function<void(const std::string&)> tell = {};
};

/// One GPU. Ops are carried out in order on one stream, and each is complete when `run` returns, so that the executor's
/// clock measures kernels. To be used by one thread at a time.
class CudaDevice final : public Device {
 public:
  /// Throws DeviceError that says what is missing: a GPU, a driver new enough, this ordinal.
  explicit CudaDevice(const CudaOptions& options);
  ~CudaDevice() override;
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;

  std::string description() const override;
  /// Zeroed. Throws DeviceError that tells what is free where there is too little.
  std::byte* allocate(std::int64_t bytes) override;
  void copy_to_device(std::byte* to, const void* from, std::int64_t bytes) override;
  void copy_from_device(void* to, const std::byte* from, std::int64_t bytes) override;
  void fill(std::byte* to, std::uint8_t value, std::int64_t bytes) override;
  std::int64_t workspace_bytes(const OpDefinition& definition, OpDefinition::Types inputs,
                               OpDefinition::Types outputs) override;
  void run(const OpDefinition& definition, const KernelArguments& arguments) override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// GPUs that this process sees. Throws DeviceError where there is none, or none that this build can use.
int cuda_device_count();

}  // namespace annulus
