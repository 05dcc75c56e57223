#pragma once

#include <string>

#include "runtime/cpu/device.h"

namespace annulus::testing {

/// The CPU's device, of which a test replaces how kernels are run.
class OverCpuDevice : public Device {
 public:
  explicit OverCpuDevice(int threads = 0) : host_(threads) {}
  std::string description() const override { return host_.description(); }
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
    return host_.workspace_bytes(definition, inputs, outputs);
  }

 protected:
  CpuDevice host_;
};

}  // namespace annulus::testing
