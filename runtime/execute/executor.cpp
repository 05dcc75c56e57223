#include "runtime/execute/executor.h"

#include <fmt/format.h>

#include "runtime/core/error.h"
#include "runtime/execute/carrier.h"

namespace annulus {
namespace {

/// A not-a-number in every float format, and an absurd id in i32.
constexpr std::uint8_t kPoison = 0xFF;

std::function<Communicator::Pending()> transfer_of(const CollectiveCall& call, Communicator& group,
                                                   const PreparedOp& op) {
  const Tensor in = op.inputs.front(), out = op.outputs.front();
  std::int64_t count = 0;
  for (const Tensor& input : op.inputs) count += input.elements();
  switch (call.kind) {
    case CollectiveKind::all_reduce:
      return [&group, in, out, count, how = call.reduction] {
        return group.all_reduce(in.data, out.data, count, in.dtype, how);
      };
    case CollectiveKind::all_gather:
      // Of a bucket's inputs the part comes last.
      return
          [&group, in = op.inputs.back(), out] { return group.all_gather(in.data, out.data, in.elements(), in.dtype); };
    case CollectiveKind::reduce_scatter:
      return [&group, in, out, how = call.reduction] {
        return group.reduce_scatter(in.data, out.data, out.elements(), in.dtype, how);
      };
    case CollectiveKind::shift:
      return [&group, in, out, distance = call.distance] {
        return group.shift(in.data, out.data, in.elements(), in.dtype, distance);
      };
    default:
      throw InternalError(op.label + ": programs do not record this collective");
  }
}

}  // namespace

Executor::Executor(const Program& program, Device& device, CommunicatorLookup communicators, ExecutorOptions options)
    : program_(program),
      device_(device),
      communicators_(std::move(communicators)),
      options_(std::move(options)),
      schedule_(make_schedule(program)) {
  const bool has_streams = device_.streams() != nullptr;
  if (options_.execution == Execution::graph && !has_streams)
    throw ConfigError("a step cannot be captured as a graph on " + device_.description() +
                      ": it has no streams; run it op by op");
  plan_ = plan_memory(program_, schedule_, workspace_of(device_));
  if (options_.shared_memory) shared_ = options_.shared_memory(plan_.arena_bytes);
  arena_ = shared_ ? shared_.get() : device_.allocate(plan_.arena_bytes);
  ops_.reserve(static_cast<std::size_t>(program_.op_count()));
  for (int i = 0; i < program_.op_count(); ++i) prepare(i);
  for (int i = 0; i < program_.op_count(); ++i) {
    const int segment = program_.op(i).segment;
    if (i == 0 || program_.op(i - 1).segment != segment)
      segments_.push_back({i, i, program_.segments()[static_cast<std::size_t>(segment)].repeat});
    ++segments_.back().last;
  }
  const CarrierContext context{ops_, segments_, schedule_.lane_count(), device_, options_, trace_, counters_};
  carrier_ =
      has_streams && options_.execution != Execution::host ? make_stream_carrier(context) : make_host_carrier(context);
  if (options_.disturb_seed) disturbance_.seed(*options_.disturb_seed);
}

Executor::~Executor() = default;

const std::string& Executor::label(int op) const { return ops_[static_cast<std::size_t>(op)].label; }

void Executor::set_expected_seconds(const std::vector<double>& seconds) {
  for (std::size_t i = 0; i < ops_.size(); ++i) ops_[i].expected_seconds = seconds[i];
}

Tensor Executor::tensor(ValueId id) const {
  const std::int64_t offset = plan_.offsets[static_cast<std::size_t>(id)];
  if (offset < 0) throw InternalError(program_.value(id).name + " has no memory: no op touches it");
  return {arena_ + offset, program_.type(id).dtype, program_.type(id).shape};
}

void Executor::prepare(int index) {
  const Op& op = program_.op(index);
  PreparedOp step;
  step.definition = op.definition.get();
  step.lane = schedule_.lanes[static_cast<std::size_t>(index)];
  for (ValueId id : op.inputs) step.inputs.push_back(tensor(id));
  for (ValueId id : op.outputs) step.outputs.push_back(tensor(id));
  step.arguments = {step.inputs, step.outputs, arena_ + plan_.workspace_offset, plan_.workspace_bytes,
                    &counters_[static_cast<std::size_t>(op.phase)]};
  step.label = fmt::format("{} {} {}", op.scope.empty() ? "step" : op.scope, name_of(op.phase), op.definition->name());
  if (const auto call = op.definition->collective()) {
    step.label += fmt::format("<{}>", program_.mesh().label(call->axes));
    step.group = &communicators_(call->axes);
    step.start = transfer_of(*call, *step.group, step);
  }
  ops_.push_back(std::move(step));
}

WorkCounters Executor::counters() const {
  WorkCounters sum;
  for (const WorkCounters& one : counters_) sum += one;
  return sum;
}

void Executor::write(ValueId id, const void* from) {
  const Tensor to = tensor(id);
  carrier_->write(to.data, from, to.bytes());
}

void Executor::read(ValueId id, void* to) const { read_part(id, to, 0, tensor(id).bytes()); }

void Executor::write_part(ValueId id, const void* from, std::int64_t offset, std::int64_t bytes) {
  carrier_->write(tensor(id).data + offset, from, bytes);
}

void Executor::read_part(ValueId id, void* to, std::int64_t offset, std::int64_t bytes) const {
  device_.copy_from_device(to, tensor(id).data + offset, bytes);
}

void Executor::clear(ValueId id) {
  const Tensor to = tensor(id);
  device_.fill(to.data, 0, to.bytes());
}

const StepTrace& Executor::run(const Bind& bind, Overlap overlap) {
  const Carrier::Walk walks = [&](const SegmentSpan& segment) { walk(segment, overlap); };
  trace_.events.clear();
  trace_.begin = now_seconds();
  carrier_->begin_step(overlap, walks);
  for (const SegmentSpan& segment : segments_) {
    const int index = program_.op(segment.first).segment;
    for (int iteration = 0; iteration < segment.repeat; ++iteration) {
      bind(program_.segments()[static_cast<std::size_t>(index)], iteration);
      carrier_->run_segment(segment, walks);
    }
  }
  carrier_->end_step();
  trace_.end = now_seconds();
  return trace_;
}

void Executor::walk(const SegmentSpan& segment, Overlap overlap) {
  for (int i = segment.first; i < segment.last; ++i) {
    for (int other : schedule_.waits[static_cast<std::size_t>(i)]) carrier_->wait_for(other);
    if (options_.disturb_seed) disturb(i);
    if (ops_[static_cast<std::size_t>(i)].lane == 0) {
      carrier_->compute(i);
    } else {
      carrier_->hand_over(i);
      if (overlap == Overlap::off) carrier_->wait_for(i);
    }
  }
  for (int i = segment.first; i < segment.last; ++i)
    if (ops_[static_cast<std::size_t>(i)].lane != 0) carrier_->wait_for(i);
  carrier_->end_segment(segment);
}

void Executor::disturb(int index) {
  for (int freed : plan_.freed_before[static_cast<std::size_t>(index)]) {
    const Buffer& buffer = plan_.buffers[static_cast<std::size_t>(freed)];
    carrier_->fill(arena_ + buffer.offset, kPoison, buffer.bytes);
  }
  const bool computes = ops_[static_cast<std::size_t>(index)].lane == 0;
  if (computes && disturbance_() % 8 != 0) return;
  carrier_->delay(index, std::uniform_real_distribution<>(0, 200e-6)(disturbance_));
}

}  // namespace annulus
