#pragma once

#include <vector>

#include "runtime/execute/device.h"
#include "runtime/ops/matmul.h"
#include "tests/streams/fake_streams.h"

namespace annulus::testing {

/// A device that takes orders: the kernels are another device's, the streams stand-ins.
class StreamDevice final : public Device {
 public:
  StreamDevice(Device& kernels, std::uint64_t seed) : kernels_(kernels), streams_(seed) {}

  std::string description() const override { return "streams over " + kernels_.description(); }
  std::byte* allocate(std::int64_t bytes) override { return kernels_.allocate(bytes); }
  void copy_to_device(std::byte* to, const void* from, std::int64_t bytes) override {
    finish("a copy to the device", [&] { kernels_.copy_to_device(to, from, bytes); },
           {{to, bytes, Access::How::writes}});
  }
  void copy_from_device(void* to, const std::byte* from, std::int64_t bytes) override {
    finish("a copy from the device", [&] { kernels_.copy_from_device(to, from, bytes); },
           {{from, bytes, Access::How::reads}});
  }
  void fill(std::byte* to, std::uint8_t value, std::int64_t bytes) override {
    finish("a fill", [&] { kernels_.fill(to, value, bytes); }, {{to, bytes, Access::How::writes}});
  }
  std::int64_t workspace_bytes(const OpDefinition& definition, OpDefinition::Types inputs,
                               OpDefinition::Types outputs) override {
    return kernels_.workspace_bytes(definition, inputs, outputs);
  }
  void run(const OpDefinition& definition, const KernelArguments& arguments) override {
    finish(std::string(definition.name()), [&] { kernels_.run(definition, arguments); }, {});
  }

  FakeStreams* streams() override { return &streams_; }
  void enqueue(Stream* stream, const OpDefinition& definition, const KernelArguments& arguments) override {
    std::vector<Access> accesses;
    for (const Tensor& input : arguments.inputs) accesses.push_back({input.data, input.bytes(), Access::How::reads});
    for (const Tensor& output : arguments.outputs)
      accesses.push_back({output.data, output.bytes(), Access::How::writes});
    accesses.push_back({arguments.workspace, arguments.workspace_bytes, Access::How::writes});
    if (const auto* product = dynamic_cast<const Matmul*>(&definition)) {
      const Matmul::Sizes sizes = product->sizes(arguments.inputs[0].shape, arguments.inputs[1].shape);
      arguments.counters->product_flops += 2.0 * static_cast<double>(sizes.m * sizes.n * sizes.k);
    }
    const auto run = [this, &definition, inputs = std::vector(arguments.inputs.begin(), arguments.inputs.end()),
                      outputs = std::vector(arguments.outputs.begin(), arguments.outputs.end()),
                      memory = arguments.workspace, bytes = arguments.workspace_bytes] {
      WorkCounters uncounted;
      kernels_.run(definition, {inputs, outputs, memory, bytes, &uncounted});
    };
    streams_.put(stream, at_once(std::string(definition.name()), run, std::move(accesses)));
  }

 private:
  void finish(std::string name, const std::function<void()>& what, std::vector<Access> accesses) {
    streams_.finish(at_once(std::move(name), what, std::move(accesses)));
  }

  Device& kernels_;
  FakeStreams streams_;
};

}  // namespace annulus::testing
