#include "runtime/simulate/prediction.h"

#include <algorithm>
#include <deque>
#include <set>

#include "runtime/ops/op_table.h"
#include "runtime/simulate/collective_cost.h"
#include "runtime/simulate/reuse.h"

namespace annulus {
namespace {

double bytes_of(const Work& work) { return static_cast<double>(work.bytes_read + work.bytes_written); }

/// Types of an op's operands.
struct Operation {
  std::vector<ValueType> inputs, outputs;
  Operation(const Program& program, const Op& op) {
    for (ValueId id : op.inputs) inputs.push_back(program.type(id));
    for (ValueId id : op.outputs) outputs.push_back(program.type(id));
  }
};

double largest_matrix_bytes(const Program& program, const Op& product) {
  return static_cast<double>(std::max({program.type(product.inputs[0]).bytes(), program.type(product.inputs[1]).bytes(),
                                       program.type(product.outputs[0]).bytes()}));
}

/// Of what a product does to its result: as long as the pass that it stands for, whose arithmetic outweighs the memory.
double finish_seconds(const Program& program, const Op& product, const HardwareProfile& profile) {
  const double bytes = static_cast<double>(program.type(product.outputs[0]).bytes());
  switch (dynamic_cast<const Matmul&>(*product.definition).finish()) {
    case Matmul::Finish::none:
      return 0;
    case Matmul::Finish::gelu_slope:
      return profile.pass_seconds(name_of(OpKind::gelu_grad), 3 * bytes);
    default:
      return profile.pass_seconds(name_of(OpKind::gelu), 2 * bytes);
  }
}

/// Of an op that finds its operands where the ops before have left them.
double near_seconds(const Program& program, const Op& op, const Work& work, const HardwareProfile& profile) {
  const DType dtype = program.type(op.inputs.front()).dtype;
  switch (op.definition->kind()) {
    case OpKind::matmul:
      return profile.op_overhead_seconds +
             profile.product_seconds(dtype, work.flops, largest_matrix_bytes(program, op)) +
             finish_seconds(program, op, profile);
    case OpKind::attention_step:
      return profile.op_overhead_seconds + profile.attention_forward_seconds(dtype, work.flops,
                                                                             static_cast<double>(work.attended_pairs),
                                                                             keys_per_query(*op.definition));
    case OpKind::attention_step_grad:
      return profile.op_overhead_seconds + profile.attention_backward_seconds(dtype, work.flops,
                                                                              static_cast<double>(work.attended_pairs),
                                                                              keys_per_query(*op.definition));
    default:
      return profile.op_overhead_seconds + profile.pass_seconds(op.definition->name(), bytes_of(work));
  }
}

}  // namespace

double keys_per_query(const OpDefinition& step) {
  const auto of = [](const std::vector<AttentionBlock>& blocks) {
    double pairs = 0, queries = 0;
    for (const AttentionBlock& block : blocks) {
      pairs += static_cast<double>(block.pairs());
      queries += block.query_end - block.query_begin;
    }
    return queries > 0 ? pairs / queries : 0;
  };
  if (const auto* forward = dynamic_cast<const AttentionStep*>(&step)) return of(forward->blocks());
  return of(dynamic_cast<const AttentionStepGrad&>(step).blocks());
}

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
  const auto [inputs, outputs] = Operation(program, op);
  OpCost cost;
  cost.work = op.definition->work(inputs, outputs);
  if (const auto call = op.definition->collective()) {
    std::int64_t in = 0, out = 0;
    for (const ValueType& type : inputs) in += type.bytes();
    for (const ValueType& type : outputs) out += type.bytes();
    cost.payload_bytes = call->kind == CollectiveKind::all_gather ? out : in;
    cost.group_size = program.mesh().size(call->axes);
    if (!op.definition->aliases().empty()) cost.operands = Operands::in_place;
    cost.wire_bytes = wire_bytes(call->kind, cost.group_size, static_cast<double>(cost.payload_bytes));
  }
  return cost;
}

namespace {

/// The walk: a clock of the compute lane, and what is under way in each lane of collectives.
class Walk {
 public:
  Walk(const Program& program, const Schedule& schedule, const MemoryPlan& plan, const HardwareProfile& profile,
       Reuse& reuse)
      : program_(program),
        schedule_(schedule),
        plan_(plan),
        profile_(profile),
        reuse_(reuse),
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
    reuse_.end_step(now_);
    return std::move(prediction_);
  }

 private:
  struct Lane {
    std::deque<int> queue;
    double remaining = 0;  ///< seconds that the first in the queue would take alone
    OverlapCost cost;      ///< of the same
  };

  OpPrediction& prediction_of(int op) { return prediction_.ops[static_cast<std::size_t>(op)]; }

  void take(int index) {
    const Op& op = program_.op(index);
    const OpCost cost = cost_of(program_, op);
    if (const auto call = op.definition->collective()) {
      Lane& lane = lanes_[static_cast<std::size_t>(schedule_.lanes[static_cast<std::size_t>(index)])];
      prediction_of(index).alone_seconds =
          profile_.collective_seconds(call->kind, cost.group_size, static_cast<double>(cost.payload_bytes),
                                      hosts_of(program_.mesh(), call->axes, profile_.ranks_per_host), cost.operands);
      lane.queue.push_back(index);
      if (lane.queue.size() == 1) begin_first(lane, now_);
      return;
    }
    if (op.definition->is_view()) return;
    OpPrediction& own = prediction_of(index);
    own.alone_seconds =
        near_seconds(program_, op, cost.work, profile_) + profile_.far_seconds(op.definition->name(), far_bytes(op));
    own.begin = now_;
    const double slowed = pass(own.alone_seconds, Beside::compute);
    now_ += slowed;
    own.end = now_;
    own.seconds = own.end - own.begin;
    touch(op, now_);
    prediction_.exposed_seconds += slowed * repeat_;
    prediction_.compute_seconds += own.alone_seconds * repeat_;
    prediction_.flops += cost.work.flops * repeat_;
  }

  /// Calls `each` with offset and bytes of what the op reads and writes of the arena, each piece once.
  template <class Each>
  void operands(const Op& op, const Each& each) const {
    std::vector<ValueId> values = op.inputs;
    values.insert(values.end(), op.outputs.begin(), op.outputs.end());
    std::vector<std::int64_t> seen;
    for (ValueId id : values) {
      const std::int64_t offset = plan_.offsets[static_cast<std::size_t>(id)];
      if (offset < 0 || std::find(seen.begin(), seen.end(), offset) != seen.end()) continue;
      seen.push_back(offset);
      each(offset, program_.type(id).bytes());
    }
  }

  double far_bytes(const Op& op) const {
    double far = 0;
    operands(op, [&](std::int64_t at, std::int64_t bytes) { far += reuse_.far_bytes(at, bytes, now_, profile_); });
    return far;
  }
  void touch(const Op& op, double when) {
    operands(op, [&](std::int64_t at, std::int64_t bytes) { reuse_.touch(at, bytes, when); });
  }

  void begin_first(Lane& lane, double when) {
    OpPrediction& first = prediction_of(lane.queue.front());
    lane.remaining = first.alone_seconds;
    lane.cost = profile_.overlap_cost(first.alone_seconds);
    first.begin = when;
  }

  enum class Beside { compute, nothing };

  /// Lets `seconds` pass, in which transfers move on. Returns the seconds by which they slow the compute beside them.
  double pass(double seconds, Beside beside) {
    double lost = 0;
    for (Lane& lane : lanes_) {
      double left = seconds;
      while (!lane.queue.empty() && (left > 0 || lane.remaining <= 0)) {
        const double slowdown = beside == Beside::compute ? lane.cost.beside_seconds / lane.cost.alone_seconds : 1;
        const double moved = std::min(left / slowdown, lane.remaining);
        left -= moved * slowdown;
        lane.remaining -= moved;
        if (moved > 0) lost += moved * lane.cost.lost_seconds / lane.cost.alone_seconds;
        if (lane.remaining <= 0) finish_first(lane, now_ + seconds - left);
      }
    }
    now_ += seconds;
    return lost;
  }

  void finish_first(Lane& lane, double when) {
    const int index = lane.queue.front();
    OpPrediction& done = prediction_of(index);
    done.end = when;
    done.seconds = done.end - done.begin;
    prediction_.communication_seconds += done.seconds * repeat_;
    touch(program_.op(index), when);
    complete_[static_cast<std::size_t>(index)] = true;
    lane.queue.pop_front();
    if (!lane.queue.empty()) begin_first(lane, when);
  }

  void wait_for(int index) {
    Lane& lane = lanes_[static_cast<std::size_t>(schedule_.lanes[static_cast<std::size_t>(index)])];
    const double begin = now_;
    while (!complete_[static_cast<std::size_t>(index)]) pass(lane.remaining, Beside::nothing);
    expose(index, now_ - begin);
  }

  void expose(int index, double seconds) {
    prediction_of(index).exposed += seconds;
    prediction_.exposed_seconds += seconds * repeat_;
  }

  const Program& program_;
  const Schedule& schedule_;
  const MemoryPlan& plan_;
  const HardwareProfile& profile_;
  Reuse& reuse_;
  StepPrediction prediction_;
  std::vector<Lane> lanes_;
  std::vector<bool> complete_;
  double now_ = 0, repeat_ = 1;
};

}  // namespace

StepPrediction predict_step(const Program& program, const Schedule& schedule, const MemoryPlan& plan,
                            const HardwareProfile& profile) {
  Reuse reuse(plan.arena_bytes);
  (void)Walk(program, schedule, plan, profile, reuse).run();  // leaves what the step before has left in the caches
  return Walk(program, schedule, plan, profile, reuse).run();
}

}  // namespace annulus
