#include "runtime/simulate/prediction.h"

#include <algorithm>
#include <deque>
#include <set>

#include "runtime/ops/op_table.h"
#include "runtime/simulate/collective_cost.h"

namespace annulus {
namespace {

double compute_seconds(const Program& program, const Op& op, const Work& work, const HardwareProfile& profile) {
  if (op.definition->is_view()) return 0;
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

int hosts_of(const MeshAxes& mesh, AxisSet axes, int ranks_per_host) {
  if (ranks_per_host == 0) return 1;
  std::set<int> hosts;
  for (int member = 0; member < mesh.size(axes); ++member) {
    // Its number in the mesh: along the axes of the group its own coordinates, along all others this rank's.
    int rank = 0, stride = 1, rest = member;
    for (int axis = mesh.count() - 1; axis >= 0; --axis) {
      const int size = mesh[axis].size;
      const bool in_group = axes.contains(axis);
      rank += stride * (in_group ? rest % size : mesh[axis].coordinate);
      if (in_group) rest /= size;
      stride *= size;
    }
    hosts.insert(rank / ranks_per_host);
  }
  return static_cast<int>(hosts.size());
}

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
    cost.payload_bytes = call->kind == CollectiveKind::all_gather ? out : in;
    cost.group_size = program.mesh().size(call->axes);
    cost.wire_bytes = wire_bytes(call->kind, cost.group_size, static_cast<double>(cost.payload_bytes));
  }
  return cost;
}

namespace {

/// The walk: a clock of the compute lane, and what is under way in each lane of collectives.
class Walk {
 public:
  Walk(const Program& program, const Schedule& schedule, const HardwareProfile& profile)
      : program_(program),
        schedule_(schedule),
        profile_(profile),
        lanes_(static_cast<std::size_t>(schedule.lane_count())),
        complete_(static_cast<std::size_t>(program.op_count())) {
    prediction_.ops.resize(static_cast<std::size_t>(program.op_count()));
  }

  StepPrediction run() {
    double segment_begin = 0;
    for (int i = 0; i < program_.op_count(); ++i) {
      repeat_ = program_.segments()[static_cast<std::size_t>(program_.op(i).segment)].repeat;
      for (int other : schedule_.waits[static_cast<std::size_t>(i)]) wait_for(other);
      take(i);
      const bool last_of_segment = i + 1 == program_.op_count() || program_.op(i + 1).segment != program_.op(i).segment;
      if (!last_of_segment) continue;
      for (const Lane& lane : lanes_)
        while (!lane.queue.empty()) wait_for(lane.queue.front());
      prediction_.step_seconds += (now_ - segment_begin) * repeat_;
      segment_begin = now_;
    }
    return std::move(prediction_);
  }

 private:
  struct Lane {
    std::deque<int> queue;
    double remaining = 0;  ///< seconds that the first in the queue would take undisturbed
  };

  OpPrediction& prediction_of(int op) { return prediction_.ops[static_cast<std::size_t>(op)]; }

  void take(int index) {
    const Op& op = program_.op(index);
    const OpCost cost = cost_of(program_, op);
    if (const auto call = op.definition->collective()) {
      Lane& lane = lanes_[static_cast<std::size_t>(schedule_.lanes[static_cast<std::size_t>(index)])];
      prediction_of(index).seconds =
          profile_.collective_seconds(call->kind, cost.group_size, static_cast<double>(cost.payload_bytes),
                                      hosts_of(program_.mesh(), call->axes, profile_.ranks_per_host));
      lane.queue.push_back(index);
      if (lane.queue.size() == 1) begin_first(lane, now_);
      return;
    }
    OpPrediction& own = prediction_of(index);
    own.seconds = compute_seconds(program_, op, cost.work, profile_);
    own.begin = now_;
    const double moved = pass(own.seconds, profile_.overlap_slowdown);
    const double slowed = profile_.overlap_loss * moved;
    now_ += slowed;
    own.end = now_;
    prediction_.exposed_seconds += slowed * repeat_;
    prediction_.compute_seconds += own.seconds * repeat_;
    prediction_.flops += cost.work.flops * repeat_;
  }

  void begin_first(Lane& lane, double when) {
    OpPrediction& first = prediction_of(lane.queue.front());
    lane.remaining = first.seconds;
    first.begin = when;
  }

  /// Lets `seconds` pass, in which a transfer takes `slowdown` times as long as alone. Returns the seconds that all
  /// transfers together moved on by, as if alone.
  double pass(double seconds, double slowdown) {
    double moved_by_all = 0;
    for (Lane& lane : lanes_) {
      double left = seconds;
      while (!lane.queue.empty() && (left > 0 || lane.remaining <= 0)) {
        const double moved = std::min(left / slowdown, lane.remaining);
        left -= moved * slowdown;
        lane.remaining -= moved;
        moved_by_all += moved;
        if (lane.remaining <= 0) finish_first(lane, now_ + seconds - left);
      }
    }
    now_ += seconds;
    return moved_by_all;
  }

  void finish_first(Lane& lane, double when) {
    const int index = lane.queue.front();
    OpPrediction& done = prediction_of(index);
    done.end = when;
    done.seconds = done.end - done.begin;
    prediction_.communication_seconds += done.seconds * repeat_;
    complete_[static_cast<std::size_t>(index)] = true;
    lane.queue.pop_front();
    if (!lane.queue.empty()) begin_first(lane, when);
  }

  void wait_for(int index) {
    Lane& lane = lanes_[static_cast<std::size_t>(schedule_.lanes[static_cast<std::size_t>(index)])];
    const double begin = now_;
    while (!complete_[static_cast<std::size_t>(index)]) pass(lane.remaining, 1);
    expose(index, now_ - begin);
  }

  void expose(int index, double seconds) {
    prediction_of(index).exposed += seconds;
    prediction_.exposed_seconds += seconds * repeat_;
  }

  const Program& program_;
  const Schedule& schedule_;
  const HardwareProfile& profile_;
  StepPrediction prediction_;
  std::vector<Lane> lanes_;
  std::vector<bool> complete_;
  double now_ = 0, repeat_ = 1;
};

}  // namespace

StepPrediction predict_step(const Program& program, const Schedule& schedule, const HardwareProfile& profile) {
  return Walk(program, schedule, profile).run();
}

}  // namespace annulus
