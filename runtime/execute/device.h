#pragma once

#include <string>

#include "runtime/core/stream.h"
#include "runtime/execute/kernel.h"
#include "runtime/program/memory_plan.h"
#include "runtime/program/op.h"

namespace annulus {

class Streams;

/// Where programs run. One object per rank; not thread-safe.
class Device {
 public:
  virtual ~Device() = default;
  /// As in `cpu: AMD EPYC 9R14, 2 threads`.
  virtual std::string description() const = 0;
  /// Memory that lives as long as the device, aligned for its widest access, touched. Throws DeviceError.
  virtual std::byte* allocate(std::int64_t bytes) = 0;
  virtual void copy_to_device(std::byte* to, const void* from, std::int64_t bytes) = 0;
  virtual void copy_from_device(void* to, const std::byte* from, std::int64_t bytes) = 0;
  virtual void fill(std::byte* to, std::uint8_t value, std::int64_t bytes) = 0;
  /// Scratch that `run` will want for these operands, in bytes.
  virtual std::int64_t workspace_bytes(const OpDefinition& definition, OpDefinition::Types inputs,
                                       OpDefinition::Types outputs) = 0;
  /// Carries out a compute op; it is complete on return. Throws DeviceError.
  virtual void run(const OpDefinition& definition, const KernelArguments& arguments) = 0;

  /// Where the device takes orders: its streams, else null.
  virtual Streams* streams() { return nullptr; }
  /// Puts a compute op on a stream of `streams()`: the operands' memory is used later, the workspace by no other
  /// stream, and the counters at once.
  virtual void enqueue(Stream*, const OpDefinition& definition, const KernelArguments& arguments) {
    run(definition, arguments);
  }
};

/// What the device, which must live as long, wants as scratch.
inline WorkspaceQuery workspace_of(Device& device) {
  return [&device](const OpDefinition& definition, OpDefinition::Types inputs, OpDefinition::Types outputs) {
    return device.workspace_bytes(definition, inputs, outputs);
  };
}

}  // namespace annulus
