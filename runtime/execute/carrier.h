#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/core/communicator.h"
#include "runtime/execute/executor.h"

namespace annulus {

/// An op made ready to be carried out.
struct PreparedOp {
  const OpDefinition* definition = nullptr;
  int lane = 0;
  std::string label;
  std::vector<Tensor> inputs, outputs;
  KernelArguments arguments;                     ///< of a compute op
  Communicator* group = nullptr;                 ///< of a collective, as what follows
  std::function<Communicator::Pending()> start;  ///< asks the group for it
  double expected_seconds = 0;
};

/// The ops of a segment in the program's list, and how often a step runs them.
struct SegmentSpan {
  int first = 0, last = 0;
  int repeat = 1;
};

/// What the ways of carrying a program out share.
struct CarrierContext {
  const std::vector<PreparedOp>& ops;
  const std::vector<SegmentSpan>& segments;
  int lane_count = 1;
  Device& device;
  const ExecutorOptions& options;
  StepTrace& trace;
  std::array<WorkCounters, kPhases>& counters;
};

/// Carries out what the executor's walk over the list asks for. Lane 0 computes; waits are always the compute lane's,
/// and what is handed over is behind all that lane 0 was asked for before.
class Carrier {
 public:
  /// Walks over a segment once.
  using Walk = std::function<void(const SegmentSpan& segment)>;
  virtual ~Carrier() = default;

  virtual void begin_step(Overlap, const Walk&) {}
  virtual void run_segment(const SegmentSpan& segment, const Walk& walk) { walk(segment); }
  /// Everything is complete on return, and the trace has its events.
  virtual void end_step() {}

  virtual void compute(int op) = 0;
  virtual void hand_over(int op) = 0;
  /// Of a collective that was handed over in this run of the segment.
  virtual void wait_for(int op) = 0;
  /// All of its collectives have been waited for.
  virtual void end_segment(const SegmentSpan&) {}
  /// Takes part in a step's order.
  virtual void write(std::byte* to, const void* from, std::int64_t bytes) = 0;
  virtual void fill(std::byte* to, std::uint8_t value, std::int64_t bytes) = 0;
  /// For tests: the op's lane stands still before it.
  virtual void delay(int op, double seconds) = 0;
};

/// Kernels are run, and transfers tested, by the host.
std::unique_ptr<Carrier> make_host_carrier(const CarrierContext& context);
/// Everything is put on the device's streams, a lane each, in the order of the list.
std::unique_ptr<Carrier> make_stream_carrier(const CarrierContext& context);

}  // namespace annulus
