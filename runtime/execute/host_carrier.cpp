#include <chrono>
#include <thread>

#include "runtime/execute/carrier.h"
#include "runtime/execute/lanes.h"

namespace annulus {
namespace {

class HostCarrier final : public Carrier {
 public:
  explicit HostCarrier(const CarrierContext& context)
      : context_(context),
        tickets_(context.ops.size()),
        event_of_(context.ops.size()),
        sequence_of_(context.ops.size()),
        lanes_(context.lane_count - 1, context.options.progress) {
    for (std::size_t i = 0; i < context_.ops.size(); ++i) {
      if (context_.ops[i].group == nullptr) continue;
      tickets_[i] = std::make_unique<Ticket>();
      tickets_[i]->start = context_.ops[i].start;
    }
  }

  void compute(int op) override {
    const PreparedOp& step = context_.ops[at(op)];
    OpEvent event;
    event.op = op;
    tell_begin(sequence_++, step);
    event.begin = now_seconds();
    if (!step.definition->is_view()) context_.device.run(*step.definition, step.arguments);
    event.end = now_seconds();
    context_.trace.events.push_back(event);
    tell_end();
    lanes_.poll();
  }

  void hand_over(int op) override {
    event_of_[at(op)] = context_.trace.events.size();
    sequence_of_[at(op)] = sequence_++;
    context_.trace.events.push_back({});
    context_.trace.events.back().op = op;
    lanes_.hand_over(context_.ops[at(op)].lane - 1, *tickets_[at(op)]);
    lanes_.poll();
  }

  void wait_for(int op) override {
    Ticket& ticket = *tickets_[at(op)];
    OpEvent& event = context_.trace.events[event_of_[at(op)]];
    if (event.end != 0) return;  // waited for already
    if (ticket.complete.load(std::memory_order_acquire) == 0) {
      tell_begin(sequence_of_[at(op)], context_.ops[at(op)]);
      const double begin = now_seconds();
      lanes_.wait(ticket);
      event.waited = now_seconds() - begin;
      tell_end();
    } else {
      lanes_.wait(ticket);  // at once: throws what the lane has thrown
    }
    event.arrival = ticket.handed_over;
    event.begin = ticket.begun;
    event.end = ticket.ended;
    event.transport = ticket.transport;
  }

  void write(std::byte* to, const void* from, std::int64_t bytes) override {
    context_.device.copy_to_device(to, from, bytes);
  }
  void fill(std::byte* to, std::uint8_t value, std::int64_t bytes) override { context_.device.fill(to, value, bytes); }
  void delay(int op, double seconds) override {
    if (tickets_[at(op)] != nullptr)
      tickets_[at(op)]->not_before = now_seconds() + seconds;
    else
      std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  }

 private:
  static std::size_t at(int op) { return static_cast<std::size_t>(op); }
  void tell_begin(std::uint64_t sequence, const PreparedOp& op) {
    OpMonitor* monitor = context_.options.monitor;
    if (monitor != nullptr) monitor->begin(sequence, op.label.c_str(), op.expected_seconds);
  }
  void tell_end() {
    if (context_.options.monitor != nullptr) context_.options.monitor->end();
  }

  const CarrierContext context_;
  std::vector<std::unique_ptr<Ticket>> tickets_;  // of collectives
  std::vector<std::size_t> event_of_;             // of an op's last run in this step
  std::uint64_t sequence_ = 0;                    // ops begun, in list order: the same on all ranks
  std::vector<std::uint64_t> sequence_of_;        // of an op's last run
  Lanes lanes_;                                   // last: its thread ends before what it uses
};

}  // namespace

std::unique_ptr<Carrier> make_host_carrier(const CarrierContext& context) {
  return std::make_unique<HostCarrier>(context);
}

}  // namespace annulus
