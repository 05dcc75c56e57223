#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "runtime/execute/device.h"
#include "runtime/execute/lanes.h"
#include "runtime/execute/monitor.h"
#include "runtime/program/memory_plan.h"

namespace annulus {

class Carrier;
struct PreparedOp;
struct SegmentSpan;

/// The communicator of this rank's group over a set of axes.
using CommunicatorLookup = std::function<Communicator&(AxisSet)>;

/// How a device with streams is given its orders. One without runs op by op, and the host waits for it.
enum class Execution : std::uint8_t {
  host,   ///< op by op, each waited for: where communicators cannot put transfers on streams
  ops,    ///< op by op, each timed
  graph,  ///< segments are captured once, after a first step that warms libraries up, and replayed: steps alone are
          ///< timed
};

struct ExecutorOptions {
  Progress progress = Progress::poll;
  Execution execution = Execution::ops;
  OpMonitor* monitor = nullptr;
  SharedAllocator shared_memory = {};  ///< where the arena is taken from, if it has room; else the device's own
  /// Test mode: every lane is delayed at random and freed bytes are overwritten with NaNs; results stay bitwise.
  std::optional<std::uint64_t> disturb_seed;
};

/// One run of one op within a step. Seconds of `now_seconds`.
struct OpEvent {
  int op = 0;
  double begin = 0, end = 0;                ///< of the kernel, or of the transfer
  double arrival = 0;                       ///< of a collective: when this rank was ready for it
  double waited = 0;                        ///< of a collective: how long the compute lane stood still for it
  Transport transport = Transport::direct;  ///< of a collective
};

/// What one step took on this rank.
struct StepTrace {
  double begin = 0, end = 0;
  std::vector<OpEvent> events;  ///< none of a step that was replayed
};

enum class Overlap : std::uint8_t {
  on,   ///< collectives run beside compute as the schedule allows
  off,  ///< each is waited for at once: a probe of what compute takes undisturbed; the same bits; never replayed
};

/// Walks a program on a device: allocates its arena once, then runs steps. To be destroyed, by the thread that runs it,
/// before its communicators.
class Executor {
 public:
  /// Throws ConfigError for Execution::graph where the device has no streams.
  Executor(const Program& program, Device& device, CommunicatorLookup communicators, ExecutorOptions options = {});
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  const Program& program() const { return program_; }
  const MemoryPlan& plan() const { return plan_; }
  /// Whether other ranks of this host reach the arena.
  bool shares_arena() const { return shared_ != nullptr; }
  const Schedule& schedule() const { return schedule_; }
  /// What kernels have done since the executor was made: all together, and those of one phase.
  WorkCounters counters() const;
  const WorkCounters& counters(Phase phase) const { return counters_[static_cast<std::size_t>(phase)]; }
  Device& device() { return device_; }

  /// Copies a whole local value in or out; of leaves and of values that the program keeps, between steps, and in from
  /// `bind`.
  void write(ValueId id, const void* from);
  void read(ValueId id, void* to) const;
  /// Copies `bytes` bytes to, or from, where they lie `offset` bytes from the value's begin; and makes all of its bytes
  /// zero.
  void write_part(ValueId id, const void* from, std::int64_t offset, std::int64_t bytes);
  void read_part(ValueId id, void* to, std::int64_t offset, std::int64_t bytes) const;
  void clear(ValueId id);

  /// Runs one step. `bind` is called before every run of a segment, to write its inputs. Throws what kernels and
  /// collectives throw; the executor is then good for nothing but its destruction.
  using Bind = std::function<void(const Segment& segment, int iteration)>;
  const StepTrace& run(const Bind& bind, Overlap overlap = Overlap::on);

  /// As in `layers.3.attention backward matmul`; stable while the executor lives.
  const std::string& label(int op) const;
  void set_expected_seconds(const std::vector<double>& seconds);

 private:
  void prepare(int index);
  void walk(const SegmentSpan& segment, Overlap overlap);
  void disturb(int index);
  Tensor tensor(ValueId id) const;

  const Program& program_;
  Device& device_;
  CommunicatorLookup communicators_;
  ExecutorOptions options_;
  Schedule schedule_;
  MemoryPlan plan_;
  std::shared_ptr<std::byte> shared_;  // what the arena is, where ranks share it
  std::byte* arena_ = nullptr;
  std::vector<PreparedOp> ops_;
  std::vector<SegmentSpan> segments_;
  std::array<WorkCounters, kPhases> counters_;
  StepTrace trace_;
  std::mt19937_64 disturbance_;
  std::unique_ptr<Carrier> carrier_;  // last: it uses all of these
};

}  // namespace annulus
