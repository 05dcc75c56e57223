#pragma once

#include <random>

#include "runtime/cpu/device.h"
#include "runtime/cuda/launch.h"
#include "runtime/ops/op_table.h"
#include "tests/cuda/fibers.h"

namespace annulus::testing {

/// Runs the CUDA device's kernel bodies on the CPU; the product, which is a library's there, is the CPU device's.
class FiberDevice final : public Device {
 public:
  FiberDevice() : scheduler_(std::random_device{}()) {}
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
                               OpDefinition::Types outputs) override {
    return visit_compute(definition, [&]<class Kind>(const Kind& op) -> std::int64_t {
      if constexpr (std::is_same_v<Kind, Matmul>) {
        return host_.workspace_bytes(op, inputs, outputs);
      } else {
        return device_workspace_bytes(op, inputs, outputs);
      }
    });
  }
  void run(const OpDefinition& definition, const KernelArguments& arguments) override {
    visit_compute(definition, [&]<class Kind>(const Kind& op) {
      if constexpr (std::is_same_v<Kind, Matmul>) {
        host_.run(op, arguments);
      } else {
        const std::int64_t before = scheduler_.pairs();
        launch(op, arguments, FiberLauncher{scheduler_});
        arguments.counters->attended_pairs += scheduler_.pairs() - before;
      }
    });
  }

 private:
  CpuDevice host_;
  FiberScheduler scheduler_;
};

}  // namespace annulus::testing
