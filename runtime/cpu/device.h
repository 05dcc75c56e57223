#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/execute/device.h"

namespace annulus {

class ProductCache;

/// The processors of this process. To be used by the thread that made it.
class CpuDevice final : public Device {
 public:
  /// Kernels called from this thread use `threads` threads; 0 leaves OpenMP's choice (OMP_NUM_THREADS, or all cores).
  explicit CpuDevice(int threads = 0);
  ~CpuDevice() override;
  CpuDevice(const CpuDevice&) = delete;
  CpuDevice& operator=(const CpuDevice&) = delete;

  std::string description() const override;
  /// Aligned to, and where the system gives them made of, pages of 2 MiB; zeroed.
  std::byte* allocate(std::int64_t bytes) override;
  void copy_to_device(std::byte* to, const void* from, std::int64_t bytes) override;
  void copy_from_device(void* to, const std::byte* from, std::int64_t bytes) override;
  void fill(std::byte* to, std::uint8_t value, std::int64_t bytes) override;
  std::int64_t workspace_bytes(const OpDefinition& definition, OpDefinition::Types inputs,
                               OpDefinition::Types outputs) override;
  void run(const OpDefinition& definition, const KernelArguments& arguments) override;

 private:
  struct Region {
    void* begin;
    std::size_t bytes;
  };
  std::unique_ptr<ProductCache> products_;
  std::vector<Region> regions_;
};

}  // namespace annulus
