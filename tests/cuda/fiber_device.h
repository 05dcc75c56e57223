#pragma once

#include "runtime/cpu/device.h"
#include "tests/cuda/fibers.h"

namespace annulus::testing {

/// Runs the CUDA device's kernel bodies on the CPU; the product, which is a library's there, is the CPU device's.
class FiberDevice final : public Device {
 public:
  FiberDevice();
  std::string description() const override { return "fibers on " + host_.description(); }
  std::byte* allocate(std::int64_t bytes) override { return host_.allocate(bytes); }
  void copy_to_device(std::byte* to, const void* from, std::int64_t bytes) override {
    host_.copy_to_device(to, from, bytes);
  }
  void copy_from_device(void* to, const std::byte* from, std::int64_t bytes) override {
    host_.copy_from_device(to, from, bytes);
  }
  void fill(std::byte* to, std::uint8_t value, std::int64_t bytes) override { host_.fill(to, value, bytes); }
  std::int64_t workspace_bytes(const OpDefinition& definition, OpDefinition::Types inputs,
                               OpDefinition::Types outputs) override;
  void run(const OpDefinition& definition, const KernelArguments& arguments) override;

 private:
  CpuDevice host_;
  FiberScheduler scheduler_;
};

}  // namespace annulus::testing
