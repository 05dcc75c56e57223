#pragma once

#include "tests/cuda/fibers.h"
#include "tests/over_cpu_device.h"

namespace annulus::testing {

/// Runs the CUDA device's kernel bodies on the CPU; the product, which is a library's there, is the CPU device's.
class FiberDevice final : public OverCpuDevice {
 public:
  FiberDevice();
  std::string description() const override { return "fibers on " + host_.description(); }
  std::int64_t workspace_bytes(const OpDefinition& definition, OpDefinition::Types inputs,
                               OpDefinition::Types outputs) override;
  void run(const OpDefinition& definition, const KernelArguments& arguments) override;

 private:
  FiberScheduler scheduler_;
};

}  // namespace annulus::testing
