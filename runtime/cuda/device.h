#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/cuda/determinism.h"
#include "runtime/cuda/product_choices.h"
#include "runtime/execute/device.h"

namespace annulus {

/// How float products are computed.
enum class FloatProducts : std::uint8_t {
  exact,  ///< in f32
  tf32,   ///< operands rounded to 10 bits of mantissa
};

/// Which algorithm of the library computes a product that no table has, or one at an address that divides by less
/// than a table's. Where results must be the same bits again, one that does not split the sum over k.
enum class UnchosenProducts : std::uint8_t {
  suggested,  ///< the first that it suggests
  measured,   ///< the fastest, measured when the product is met: each rank for itself, and never in a capture
};

struct CudaOptions {
  int ordinal = 0;  ///< of the GPU, among those that the process sees
  FloatProducts float_products = FloatProducts::exact;
  Determinism determinism = Determinism::any;
  UnchosenProducts unchosen_products = UnchosenProducts::suggested;
  /// Told what a user may want to know of how ops are carried out, each thing once.
  std::function<void(const std::string&)> tell = {};
};

/// Of a GPU, in bytes.
struct CudaMemory {
  std::int64_t free = 0;  ///< for anybody
  std::int64_t total = 0;
  std::int64_t allocated = 0;  ///< by this device's `allocate`
};

/// One GPU: ops are put on its streams, or waited for by `run`. To be used by one thread at a time.
class CudaDevice final : public Device {
 public:
  /// Throws DeviceError that says what is missing: a GPU, a driver new enough, this ordinal.
  explicit CudaDevice(const CudaOptions& options);
  ~CudaDevice() override;
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;

  std::string description() const override;
  CudaMemory memory() const;
  /// What algorithms of products are chosen for: the GPU, and the library.
  std::string product_machine() const;
  /// The table that products take their algorithms from, completed for these: measures which is fastest, with memory
  /// that it gives back: less than a step has that computes them.
  const ProductTable& choose_products(const std::vector<ProductShape>& shapes);
  /// Products take these algorithms from now on. Throws ConfigError, naming `where` the table stands, where it is of
  /// another machine or not for these shapes.
  void use_products(const ProductTable& table, const std::vector<ProductShape>& shapes, const std::string& where);
  /// Zeroed. Throws DeviceError that tells what is free where there is too little.
  std::byte* allocate(std::int64_t bytes) override;
  void copy_to_device(std::byte* to, const void* from, std::int64_t bytes) override;
  void copy_from_device(void* to, const std::byte* from, std::int64_t bytes) override;
  void fill(std::byte* to, std::uint8_t value, std::int64_t bytes) override;
  std::int64_t workspace_bytes(const OpDefinition& definition, OpDefinition::Types inputs,
                               OpDefinition::Types outputs) override;
  void run(const OpDefinition& definition, const KernelArguments& arguments) override;
  Streams* streams() override;
  void enqueue(Stream* stream, const OpDefinition& definition, const KernelArguments& arguments) override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// A GPU as the driver names it.
struct CudaGpu {
  using Id = std::array<std::uint8_t, 16>;
  Id id{};  ///< unlike that of any other GPU, or part of one
  std::string name;
};

/// GPUs that this process sees, by ordinal. Throws DeviceError where there is none, or no driver new enough.
std::vector<CudaGpu> cuda_gpus();

/// Versions of the libraries that this build runs with, by name.
std::vector<std::pair<std::string, std::string>> cuda_versions();

}  // namespace annulus
