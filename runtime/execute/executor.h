#pragma once

#include <array>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "runtime/execute/device.h"
#include "runtime/execute/lanes.h"
#include "runtime/program/memory_plan.h"

namespace annulus {

/// The communicator of this rank's group over a set of axes.
using CommunicatorLookup = std::function<Communicator&(AxisSet)>;

/// Told which op a rank is in, so that a hang can be named. Calls cost two stores.
class OpMonitor {
 public:
  virtual ~OpMonitor() = default;
  /// `what` stays valid while the monitor does; `expected_seconds` is the model's prediction, 0 if there is none.
  virtual void begin(std::uint64_t sequence, const char* what, double expected_seconds) = 0;
  virtual void end() = 0;
};

struct ExecutorOptions {
  Progress progress = Progress::poll;
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
  std::vector<OpEvent> events;
};

enum class Overlap : std::uint8_t {
  on,   ///< collectives run beside compute as the schedule allows
  off,  ///< each is waited for at once: a probe of what compute takes undisturbed; the same bits
};

/// Walks a program on a device: allocates its arena once, then runs steps.
class Executor {
 public:
  Executor(const Program& program, Device& device, CommunicatorLookup communicators, ExecutorOptions options = {});
  ~Executor();

  const Program& program() const { return program_; }
  const MemoryPlan& plan() const { return plan_; }
  /// Whether other ranks of this host reach the arena.
  bool shares_arena() const { return shared_ != nullptr; }
  const Schedule& schedule() const { return schedule_; }
  /// What kernels have done since the executor was made: all together, and those of one phase.
  WorkCounters counters() const;
  const WorkCounters& counters(Phase phase) const { return counters_[static_cast<std::size_t>(phase)]; }
  Device& device() { return device_; }

  /// Copies a whole local value in or out; of leaves and of values that the program keeps, between steps.
  void write(ValueId id, const void* from);
  void read(ValueId id, void* to) const;
  /// Copies `bytes` bytes to where they lie `offset` bytes from the value's begin; and makes all of its bytes zero.
  void write_part(ValueId id, const void* from, std::int64_t offset, std::int64_t bytes);
  void clear(ValueId id);

  /// Runs one step. `bind` is called before every run of a segment, to write its inputs. Throws what kernels and
  /// collectives throw.
  using Bind = std::function<void(const Segment& segment, int iteration)>;
  const StepTrace& run(const Bind& bind, Overlap overlap = Overlap::on);

  /// As in `layers.3.attention backward matmul`; stable while the executor lives.
  const std::string& label(int op) const { return labels_[static_cast<std::size_t>(op)]; }
  void set_expected_seconds(std::vector<double> seconds) { expected_seconds_ = std::move(seconds); }

 private:
  struct Step;  // an op made ready to run

  void prepare(int index);
  void run_segment(int first, int last, Overlap overlap);
  void run_compute(int index);
  void hand_over(int index);
  void wait_for(int index);
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
  std::vector<Step> steps_;
  std::vector<std::string> labels_;
  std::vector<double> expected_seconds_;
  std::array<WorkCounters, kPhases> counters_;
  StepTrace trace_;
  std::vector<std::size_t> event_of_;       // of an op's last run in this step
  std::vector<int> outstanding_;            // collectives handed over in this segment and not yet waited for
  std::uint64_t sequence_ = 0;              // ops begun, in list order: the same on all ranks
  std::vector<std::uint64_t> sequence_of_;  // of an op's last run
  std::mt19937_64 disturbance_;
  std::vector<std::unique_ptr<Ticket>> tickets_;
  std::unique_ptr<Lanes> lanes_;  // last: its thread ends before what it uses
};

}  // namespace annulus
