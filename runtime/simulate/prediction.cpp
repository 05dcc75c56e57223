#include "runtime/simulate/prediction.h"

#include <algorithm>

#include "runtime/ops/op_table.h"
#include "runtime/simulate/collective_cost.h"

namespace annulus {
namespace {

double compute_seconds(const Program& program, const Op& op, const Work& work, const HardwareProfile& profile) {
  const DType dtype = program.type(op.inputs.front()).dtype;
  switch (op.definition->kind()) {
    case OpKind::matmul:
      return profile.op_overhead_seconds + profile.product_seconds(dtype, work.flops);
    case OpKind::attention_step:
      return profile.op_overhead_seconds + profile.attention_forward_seconds(dtype, work.flops);
    case OpKind::attention_step_grad:
      return profile.op_overhead_seconds + profile.attention_backward_seconds(dtype, work.flops);
    default:
      return profile.op_overhead_seconds +
             profile.pass_seconds(op.definition->name(), static_cast<double>(work.bytes_read + work.bytes_written));
  }
}

}  // namespace

OpCost cost_of(const Program& program, const Op& op) {
  std::vector<ValueType> inputs, outputs;
  for (ValueId id : op.inputs) inputs.push_back(program.type(id));
  for (ValueId id : op.outputs) outputs.push_back(program.type(id));
  OpCost cost;
  cost.work = op.definition->work(inputs, outputs);
  if (const auto call = op.definition->collective()) {
    std::int64_t in = 0, out = 0;
    for (const ValueType& type : inputs) in += type.bytes();
    for (const ValueType& type : outputs) out += type.bytes();
    cost.payload_bytes = std::max(in, out);
    cost.group_size = program.mesh().size(call->axes);
    cost.wire_bytes = wire_bytes(call->kind, cost.group_size, static_cast<double>(cost.payload_bytes));
  }
  return cost;
}

StepPrediction predict_step(const Program& program, const Schedule& schedule, const HardwareProfile& profile) {
  StepPrediction prediction;
  prediction.ops.resize(static_cast<std::size_t>(program.op_count()));
  std::vector<double> lane_free(static_cast<std::size_t>(schedule.lane_count()), 0.0);
  double now = 0, segment_begin = 0;
  for (int i = 0; i < program.op_count(); ++i) {
    const Op& op = program.op(i);
    OpPrediction& own = prediction.ops[static_cast<std::size_t>(i)];
    const OpCost cost = cost_of(program, op);
    const double repeat = program.segments()[static_cast<std::size_t>(op.segment)].repeat;
    const auto wait_until = [&](double when, double& exposed) {
      if (when <= now) return;
      exposed += when - now;
      prediction.exposed_seconds += (when - now) * repeat;
      now = when;
    };
    for (int other : schedule.waits[static_cast<std::size_t>(i)]) {
      OpPrediction& transfer = prediction.ops[static_cast<std::size_t>(other)];
      wait_until(transfer.end, transfer.exposed);
    }
    if (const auto call = op.definition->collective()) {
      double& free = lane_free[static_cast<std::size_t>(schedule.lanes[static_cast<std::size_t>(i)])];
      own.seconds = profile.collective_seconds(call->kind, cost.group_size, static_cast<double>(cost.payload_bytes));
      own.begin = std::max(now, free);
      free = own.end = own.begin + own.seconds;
      prediction.communication_seconds += own.seconds * repeat;
    } else {
      own.seconds = compute_seconds(program, op, cost.work, profile);
      own.begin = now;
      now = own.end = now + own.seconds;
      prediction.compute_seconds += own.seconds * repeat;
      prediction.flops += cost.work.flops * repeat;
    }
    const bool last_of_segment = i + 1 == program.op_count() || program.op(i + 1).segment != op.segment;
    if (!last_of_segment) continue;
    for (double free : lane_free) wait_until(free, own.exposed);
    prediction.step_seconds += (now - segment_begin) * repeat;
    segment_begin = now;
  }
  return prediction;
}

}  // namespace annulus
