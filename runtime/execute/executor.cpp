#include "runtime/execute/executor.h"

#include <fmt/format.h>

#include <chrono>

namespace annulus {
namespace {

/// A not-a-number in every float format, and an absurd id in i32.
constexpr std::uint8_t kPoison = 0xFF;

}  // namespace

struct Executor::Step {
  std::vector<Tensor> inputs, outputs;
  std::function<Communicator::Pending()> start;  // of a collective
};

Executor::Executor(const Program& program, Device& device, CommunicatorLookup communicators, ExecutorOptions options)
    : program_(program),
      device_(device),
      communicators_(std::move(communicators)),
      options_(std::move(options)),
      schedule_(make_schedule(program)) {
  plan_ = plan_memory(program_, schedule_,
                      [&](const OpDefinition& definition, OpDefinition::Types inputs, OpDefinition::Types outputs) {
                        return device_.workspace_bytes(definition, inputs, outputs);
                      });
  if (options_.shared_memory) shared_ = options_.shared_memory(plan_.arena_bytes);
  arena_ = shared_ ? shared_.get() : device_.allocate(plan_.arena_bytes);
  for (int i = 0; i < program_.op_count(); ++i) prepare(i);
  event_of_.resize(steps_.size());
  sequence_of_.resize(steps_.size());
  lanes_ = std::make_unique<Lanes>(schedule_.lane_count() - 1, options_.progress);
  if (options_.disturb_seed) disturbance_.seed(*options_.disturb_seed);
}

Executor::~Executor() = default;

Tensor Executor::tensor(ValueId id) const {
  const std::int64_t offset = plan_.offsets[static_cast<std::size_t>(id)];
  if (offset < 0) throw InternalError(program_.value(id).name + " has no memory: no op touches it");
  return {arena_ + offset, program_.type(id).dtype, program_.type(id).shape};
}

void Executor::prepare(int index) {
  const Op& op = program_.op(index);
  Step step;
  for (ValueId id : op.inputs) step.inputs.push_back(tensor(id));
  for (ValueId id : op.outputs) step.outputs.push_back(tensor(id));
  tickets_.push_back(nullptr);
  std::string label =
      fmt::format("{} {} {}", op.scope.empty() ? "step" : op.scope, name_of(op.phase), op.definition->name());
  if (const auto call = op.definition->collective()) {
    label += fmt::format("<{}>", program_.mesh().label(call->axes));
    Communicator& group = communicators_(call->axes);
    const Tensor in = step.inputs.front(), out = step.outputs.front();
    std::int64_t count = 0;
    for (const Tensor& input : step.inputs) count += input.elements();
    switch (call->kind) {
      case CollectiveKind::all_reduce:
        step.start = [&group, in, out, count, how = call->reduction] {
          return group.all_reduce(in.data, out.data, count, in.dtype, how);
        };
        break;
      case CollectiveKind::all_gather:
        // Of a bucket's inputs the part comes last.
        step.start = [&group, in = step.inputs.back(), out] {
          return group.all_gather(in.data, out.data, in.elements(), in.dtype);
        };
        break;
      case CollectiveKind::reduce_scatter:
        step.start = [&group, in, out, how = call->reduction] {
          return group.reduce_scatter(in.data, out.data, out.elements(), in.dtype, how);
        };
        break;
      case CollectiveKind::shift:
        step.start = [&group, in, out, distance = call->distance] {
          return group.shift(in.data, out.data, in.elements(), in.dtype, distance);
        };
        break;
      default:
        throw InternalError(label + ": programs do not record this collective");
    }
    tickets_.back() = std::make_unique<Ticket>();
    tickets_.back()->start = step.start;
  }
  labels_.push_back(std::move(label));
  steps_.push_back(std::move(step));
}

WorkCounters Executor::counters() const {
  WorkCounters sum;
  for (const WorkCounters& one : counters_) {
    sum.product_flops += one.product_flops;
    sum.attended_pairs += one.attended_pairs;
  }
  return sum;
}

void Executor::write(ValueId id, const void* from) {
  const Tensor to = tensor(id);
  device_.copy_to_device(to.data, from, to.bytes());
}

void Executor::read(ValueId id, void* to) const {
  const Tensor from = tensor(id);
  device_.copy_from_device(to, from.data, from.bytes());
}

void Executor::write_part(ValueId id, const void* from, std::int64_t offset, std::int64_t bytes) {
  device_.copy_to_device(tensor(id).data + offset, from, bytes);
}

void Executor::clear(ValueId id) {
  const Tensor to = tensor(id);
  device_.fill(to.data, 0, to.bytes());
}

const StepTrace& Executor::run(const Bind& bind, Overlap overlap) {
  trace_.events.clear();
  trace_.begin = now_seconds();
  int first = 0;
  while (first < program_.op_count()) {
    const int segment = program_.op(first).segment;
    int last = first;
    while (last < program_.op_count() && program_.op(last).segment == segment) ++last;
    const Segment& now = program_.segments()[static_cast<std::size_t>(segment)];
    for (int iteration = 0; iteration < now.repeat; ++iteration) {
      bind(now, iteration);
      run_segment(first, last, overlap);
    }
    first = last;
  }
  trace_.end = now_seconds();
  return trace_;
}

void Executor::run_segment(int first, int last, Overlap overlap) {
  outstanding_.clear();
  for (int i = first; i < last; ++i) {
    for (int other : schedule_.waits[static_cast<std::size_t>(i)]) wait_for(other);
    sequence_of_[static_cast<std::size_t>(i)] = sequence_++;
    if (options_.disturb_seed) disturb(i);
    if (schedule_.lanes[static_cast<std::size_t>(i)] == 0) {
      run_compute(i);
    } else {
      hand_over(i);
      if (overlap == Overlap::off) wait_for(i);
    }
    lanes_->poll();
  }
  for (std::size_t i = 0; i < outstanding_.size(); ++i) wait_for(outstanding_[i]);
}

void Executor::run_compute(int index) {
  const Step& step = steps_[static_cast<std::size_t>(index)];
  const double expected = expected_seconds_.empty() ? 0 : expected_seconds_[static_cast<std::size_t>(index)];
  if (options_.monitor)
    options_.monitor->begin(sequence_of_[static_cast<std::size_t>(index)],
                            labels_[static_cast<std::size_t>(index)].c_str(), expected);
  OpEvent event;
  event.op = index;
  event.begin = now_seconds();
  const Op& op = program_.op(index);
  if (!op.definition->is_view())
    device_.run(*op.definition, {step.inputs, step.outputs, arena_ + plan_.workspace_offset, plan_.workspace_bytes,
                                 &counters_[static_cast<std::size_t>(op.phase)]});
  event.end = now_seconds();
  trace_.events.push_back(event);
  if (options_.monitor) options_.monitor->end();
}

void Executor::hand_over(int index) {
  event_of_[static_cast<std::size_t>(index)] = trace_.events.size();
  trace_.events.push_back({});
  trace_.events.back().op = index;
  outstanding_.push_back(index);
  lanes_->hand_over(schedule_.lanes[static_cast<std::size_t>(index)] - 1, *tickets_[static_cast<std::size_t>(index)]);
}

void Executor::wait_for(int index) {
  Ticket& ticket = *tickets_[static_cast<std::size_t>(index)];
  OpEvent& event = trace_.events[event_of_[static_cast<std::size_t>(index)]];
  if (event.end != 0) return;  // waited for already
  if (ticket.complete.load(std::memory_order_acquire) == 0) {
    const double expected = expected_seconds_.empty() ? 0 : expected_seconds_[static_cast<std::size_t>(index)];
    if (options_.monitor)
      options_.monitor->begin(sequence_of_[static_cast<std::size_t>(index)],
                              labels_[static_cast<std::size_t>(index)].c_str(), expected);
    const double begin = now_seconds();
    lanes_->wait(ticket);
    event.waited = now_seconds() - begin;
    if (options_.monitor) options_.monitor->end();
  } else {
    lanes_->wait(ticket);  // at once: throws what the lane has thrown
  }
  event.arrival = ticket.handed_over;
  event.begin = ticket.begun;
  event.end = ticket.ended;
  event.transport = ticket.transport;
}

void Executor::disturb(int index) {
  for (int freed : plan_.freed_before[static_cast<std::size_t>(index)]) {
    const Buffer& buffer = plan_.buffers[static_cast<std::size_t>(freed)];
    device_.fill(arena_ + buffer.offset, kPoison, buffer.bytes);
  }
  const auto microseconds = [&] { return std::uniform_real_distribution<>(0, 200e-6)(disturbance_); };
  if (schedule_.lanes[static_cast<std::size_t>(index)] != 0)
    tickets_[static_cast<std::size_t>(index)]->not_before = now_seconds() + microseconds();
  else if (disturbance_() % 8 == 0)
    std::this_thread::sleep_for(std::chrono::duration<double>(microseconds()));
}

}  // namespace annulus
