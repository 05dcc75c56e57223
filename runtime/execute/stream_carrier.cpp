#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>
#include <set>
#include <thread>

#include "runtime/core/error.h"
#include "runtime/execute/carrier.h"
#include "runtime/execute/progress_words.h"
#include "runtime/execute/streams.h"

namespace annulus {
namespace {

using Event = Streams::Event;

/// What a communicator is asked for while this lives is put on a stream.
class OnStream {
 public:
  OnStream(Communicator& group, Stream* stream) : group_(group) { group_.use_stream(stream); }
  ~OnStream() { group_.use_stream(nullptr); }
  OnStream(const OnStream&) = delete;
  OnStream& operator=(const OnStream&) = delete;

 private:
  Communicator& group_;
};

class StreamCarrier final : public Carrier {
 public:
  explicit StreamCarrier(const CarrierContext& context)
      : context_(context),
        streams_(*context.device.streams()),
        words_(streams_, context.ops, context.segments, context.lane_count),
        lanes_{streams_.main()},
        used_(static_cast<std::size_t>(context.lane_count)),
        run_of_(context.ops.size()) {
    for (int lane = 1; lane < context_.lane_count; ++lane) lanes_.push_back(streams_.make_stream());
    for (const PreparedOp& op : context_.ops)
      if (op.group != nullptr) groups_.insert(op.group);
    for (Event*& event : anchors_) event = streams_.make_event();
  }
  StreamCarrier(const StreamCarrier&) = delete;
  StreamCarrier& operator=(const StreamCarrier&) = delete;
  ~StreamCarrier() override {
    if (context_.options.monitor != nullptr) context_.options.monitor->watch(nullptr);
    for (const Captured& captured : captured_) streams_.destroy(captured.graph);
  }

  void begin_step(Overlap overlap, const Walk& walk) override {
    replays_ = context_.options.execution == Execution::graph && overlap == Overlap::on && warm_;
    // All before the first replay: no communicator is called while a replay of it is under way.
    if (replays_ && captured_.empty())
      for (const SegmentSpan& segment : context_.segments) captured_.push_back(capture(segment, walk));
    forget_runs();
    in_step_ = true;
    if (context_.options.monitor != nullptr) context_.options.monitor->watch([this] { return words_.activity(); });
  }

  void run_segment(const SegmentSpan& segment, const Walk& walk) override {
    if (!replays_) return walk(segment);
    const Captured& captured = captured_[static_cast<std::size_t>(&segment - context_.segments.data())];
    streams_.launch(captured.graph);
    for (std::size_t i = 0; i < kPhases; ++i) context_.counters[i] += captured.work[i];
  }

  void end_step() override {
    Event* end = next_event();
    streams_.record(end, lanes_[0]);
    wait_until_passed(end);
    in_step_ = false;
    if (context_.options.monitor != nullptr) context_.options.monitor->watch(nullptr);
    if (!replays_) take_times();
    warm_ = true;
  }

  void compute(int op) override {
    const PreparedOp& step = context_.ops[at(op)];
    Run run{.op = op, .begin = reached_, .end = reached_};
    if (!step.definition->is_view()) {
      if (!capturing_) run.begin = mark(0);
      streams_.begin_range(step.label.c_str());
      context_.device.enqueue(lanes_[0], *step.definition, step.arguments);
      streams_.end_range();
      if (!capturing_) run.end = reached_ = mark(0);
    }
    runs_.push_back(run);
  }

  void hand_over(int op) override {
    const PreparedOp& step = context_.ops[at(op)];
    Stream* stream = lanes_[at(step.lane)];
    Run run{.op = op, .arrival = mark(0)};
    reached_ = run.arrival;
    streams_.wait(stream, run.arrival);
    if (const double seconds = std::exchange(delay_, 0.0); seconds > 0) streams_.delay(stream, seconds);
    words_.tell_begun(stream, op);
    if (!capturing_) run.begin = mark(step.lane);
    streams_.begin_range(step.label.c_str());
    {
      const OnStream put(*step.group, stream);
      const Communicator::Pending transfer = step.start();
      if (!transfer->test()) throw InternalError(step.label + ": the host would have to wait for it");
      run.transport = transfer->transport();
    }
    streams_.end_range();
    run.end = mark(step.lane);
    words_.tell_ended(stream, op);
    run_of_[at(op)] = runs_.size();
    runs_.push_back(run);
    used_[at(step.lane)] = 1;
  }

  void wait_for(int op) override {
    Run& run = runs_[run_of_[at(op)]];
    if (std::exchange(run.waited_for, true)) return;
    streams_.wait(lanes_[0], run.end);
    waits_.push_back({run_of_[at(op)], reached_});
  }

  void end_segment(const SegmentSpan& segment) override {
    for (int lane = 1; lane < context_.lane_count; ++lane) {  // also for what tells that the last transfer has ended
      if (std::exchange(used_[at(lane)], 0) == 0) continue;
      streams_.wait(lanes_[0], mark(lane));
    }
    words_.advance(lanes_[0], segment);
    reached_ = capturing_ ? nullptr : mark(0);
  }

  void write(std::byte* to, const void* from, std::int64_t bytes) override {
    if (in_step_)
      streams_.write(lanes_[0], to, from, bytes);
    else
      context_.device.copy_to_device(to, from, bytes);
  }
  void fill(std::byte* to, std::uint8_t value, std::int64_t bytes) override {
    streams_.fill(lanes_[0], to, value, bytes);
  }
  void delay(int op, double seconds) override {
    if (context_.ops[at(op)].lane != 0)
      delay_ = seconds;  // behind the lane's wait for the compute lane
    else
      streams_.delay(lanes_[0], seconds);
  }

 private:
  /// One run of one op in this step, by the events around it.
  struct Run {
    int op = 0;
    Event *arrival = nullptr, *begin = nullptr, *end = nullptr;
    Transport transport = Transport::direct;
    bool waited_for = false;
  };
  /// The compute lane waited for a run, behind the last event on it.
  struct Wait {
    std::size_t run = 0;
    Event* reached = nullptr;
  };
  struct Captured {
    Streams::Graph* graph = nullptr;
    std::array<WorkCounters, kPhases> work;  // of one replay
  };

  static std::size_t at(int index) { return static_cast<std::size_t>(index); }

  Event* next_event() {
    if (events_used_ == events_.size()) events_.push_back(streams_.make_event());
    return events_[events_used_++];
  }
  /// A new event behind all that is on the lane.
  Event* mark(int lane) {
    Event* event = next_event();
    streams_.record(event, lanes_[at(lane)]);
    return event;
  }
  void forget_runs() {
    runs_.clear();
    waits_.clear();
    events_used_ = 0;
    reached_ = nullptr;
  }

  Captured capture(const SegmentSpan& segment, const Walk& walk) {
    Captured captured;
    const std::array<WorkCounters, kPhases> before = context_.counters;
    forget_runs();
    capturing_ = true;
    streams_.begin_capture();
    try {
      walk(segment);
    } catch (...) {
      capturing_ = false;
      streams_.drop_capture();
      throw;
    }
    capturing_ = false;
    captured.graph = streams_.end_capture();
    for (std::size_t i = 0; i < kPhases; ++i) {
      captured.work[i] = context_.counters[i];
      captured.work[i] -= before[i];
    }
    context_.counters = before;
    return captured;
  }

  void wait_until_passed(Event* event) {
    constexpr int kSpins = 200, kPollsBetweenChecks = 16;
    for (int polls = 0; !streams_.passed(event); ++polls) {
      if (polls % kPollsBetweenChecks == 0)
        for (Communicator* group : groups_) group->check_health();
      if (polls < kSpins)
        std::this_thread::yield();
      else
        std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
  }

  /// Records an event when nothing else is under way; seconds of `now_seconds` at which it was passed.
  std::pair<Event*, double> anchor() {
    std::pair<Event*, double> best;
    double uncertainty = std::numeric_limits<double>::infinity();
    for (Event* event : anchors_) {
      const double before = now_seconds();
      streams_.record(event, lanes_[0]);
      while (!streams_.passed(event)) std::this_thread::yield();
      const double after = now_seconds();
      if (after - before >= uncertainty) continue;
      uncertainty = after - before;
      best = {event, before + uncertainty / 2};
    }
    return best;
  }

  void take_times() {
    const auto [anchored, anchored_at] = anchor();
    const auto seconds_of = [&, event = anchored, at = anchored_at](Event* passed) {
      return passed == nullptr ? 0 : at - streams_.seconds(passed, event);
    };
    for (const Run& run : runs_) {
      OpEvent& event = context_.trace.events.emplace_back();
      event.op = run.op;
      event.begin = seconds_of(run.begin);
      event.end = seconds_of(run.end);
      event.arrival = seconds_of(run.arrival);
      event.transport = run.transport;
    }
    Event* reached = nullptr;
    double stood_until = 0;  // the compute lane, for the waits before this one
    for (const Wait& wait : waits_) {
      OpEvent& event = context_.trace.events[wait.run];
      if (wait.reached != reached) stood_until = seconds_of(wait.reached);
      reached = wait.reached;
      event.waited = std::max(0.0, event.end - stood_until);
      stood_until = std::max(stood_until, event.end);
    }
  }

  const CarrierContext context_;
  Streams& streams_;
  ProgressWords words_;
  std::vector<Stream*> lanes_;
  std::set<Communicator*> groups_;
  std::vector<Captured> captured_;  // by segment
  bool warm_ = false, replays_ = false, capturing_ = false, in_step_ = false;

  std::vector<int> used_;  // lanes, in this run of a segment
  std::vector<Run> runs_;  // of this step, in the order of the list
  std::vector<std::size_t> run_of_;
  std::vector<Wait> waits_;
  Event* reached_ = nullptr;  // the last on the compute lane
  double delay_ = 0;          // of the next transfer
  std::vector<Event*> events_;
  std::size_t events_used_ = 0;
  std::array<Event*, 3> anchors_{};
};

}  // namespace

std::unique_ptr<Carrier> make_stream_carrier(const CarrierContext& context) {
  return std::make_unique<StreamCarrier>(context);
}

}  // namespace annulus
