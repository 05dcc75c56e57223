#include "runtime/ops/attention.h"

#include <fmt/format.h>

namespace annulus {
namespace {

using namespace placements;

/// Placement of q, kv, row_ids, step -> that of out and lse, which have q's. `kv_heads` are this rank's.
std::optional<Placement> attend(const AttentionAxes& axes, int axis, OpDefinition::AxisPlacements inputs,
                                std::int64_t kv_heads) {
  const Placement q = inputs[0], kv = inputs[1], rows = inputs[2];
  if (!inputs[3].is_replicated()) return std::nullopt;
  if (q.is_sharded(0) || axes.ring.contains(axis)) {  // a ring turns over laid-out rows and nothing else
    const bool known = q.is_sharded(0) && (q.laid_out ? axes.ring : axes.batch).contains(axis);
    return known && kv == q && rows == q ? std::optional(q) : std::nullopt;
  }
  if (!rows.is_replicated()) return std::nullopt;
  if (q.is_replicated() && kv.is_replicated()) return q;
  // Of several kv heads that all ranks hold, a rank's query heads would not know which are theirs.
  const bool shared = kv.is_replicated() && kv_heads == 1 && axes.replica.contains(axis);
  if (q == S1 && (kv == S2 || shared)) return q;
  return std::nullopt;
}

std::int64_t kv_heads(const AttentionShape& shape, OpDefinition::Types inputs) {
  return inputs[1].shape.elements(2, inputs[1].shape.rank()) / shape.head_dim;
}

struct Heads {
  std::int64_t queries = 0, keys = 0;
};

/// Checks the operands that all kinds of attention begin with; returns A and G, local.
Heads check_operands(const AttentionShape& shape, OpDefinition::Types inputs) {
  const Shape &q = inputs[0].shape, &kv = inputs[1].shape;
  require(q.rank() == 2 && kv.rank() == 3 && kv[1] == 2 && kv[0] == q[0],
          fmt::format("q {} and kv {} do not fit", q.str(), kv.str()));
  require(q[1] % shape.head_dim == 0 && kv[2] % shape.head_dim == 0,
          fmt::format("q {} or kv {} is not made of heads of {}", q.str(), kv.str(), shape.head_dim));
  const Heads heads{q[1] / shape.head_dim, kv[2] / shape.head_dim};
  require(heads.keys > 0 && heads.queries % heads.keys == 0,
          fmt::format("{} query heads cannot share {} kv heads", heads.queries, heads.keys));
  require(shape.sequences > 0 && q[0] % shape.sequences == 0,
          fmt::format("{} rows are not {} sequences", q[0], shape.sequences));
  require(inputs[2].dtype == DType::i32 && inputs[2].shape == Shape({q[0], 2}), "row ids do not fit the rows");
  return heads;
}

std::int64_t pairs_of(const Attention& composite, const std::vector<AttentionBlock>& blocks, std::int64_t heads) {
  std::int64_t pairs = 0;
  for (const AttentionBlock& block : blocks) pairs += block.pairs();
  return pairs * heads * composite.shape().sequences;
}

Work attention_work(const Attention& composite, const std::vector<AttentionBlock>& blocks, OpDefinition::Types inputs,
                    OpDefinition::Types outputs, double products) {
  Work work = streaming_work(inputs, outputs);
  work.attended_pairs = pairs_of(composite, blocks, inputs[0].shape[1] / composite.shape().head_dim);
  work.flops =
      2.0 * products * static_cast<double>(composite.shape().head_dim) * static_cast<double>(work.attended_pairs);
  return work;
}

}  // namespace

std::string Attention::attributes() const {
  return fmt::format("head_dim {}, sequences {}{}", shape_.head_dim, shape_.sequences,
                     dropout_.rate > 0 ? fmt::format(", dropout {}", dropout_.rate) : "");
}

Placed Attention::place(const MeshAxes&, int axis, AxisPlacements inputs, Types types) const {
  const auto out = attend(axes_, axis, inputs.first(4), kv_heads(shape_, types));
  return out ? Placed{{*out, *out}} : std::nullopt;
}

std::vector<ValueType> Attention::infer(const MeshAxes&, Types inputs) const {
  require_inputs(inputs, 4);
  const Heads heads = check_operands(shape_, inputs);
  const DType dtype = inputs[0].dtype;
  require(inputs[1].dtype == dtype && is_float(dtype), "q and kv have different element types");
  return {{dtype, inputs[0].shape, {}}, {wide(dtype), {inputs[0].shape[0], heads.queries}, {}}};
}

void Attention::gradient(GradientContext& context) const {
  const auto gradients = context.emit(std::make_shared<AttentionGrad>(*this),
                                      {context.input(0), context.input(1), context.input(2), context.input(3),
                                       context.output(0), context.output(1), context.gradient()});
  context.give(0, gradients[0]);
  context.give(1, gradients[1]);
}

Work Attention::work(Types inputs, Types outputs) const { return streaming_work(inputs, outputs); }

Placed AttentionGrad::place(const MeshAxes&, int axis, AxisPlacements inputs, Types types) const {
  const Placement q = inputs[0], kv = inputs[1];
  if (inputs[4] != q || inputs[5] != q || inputs[6] != q) return std::nullopt;
  if (!attend(forward_.axes(), axis, inputs.first(4), kv_heads(forward_.shape(), types))) return std::nullopt;
  // Keys that all ranks hold have been read by each rank's own query heads.
  return {{q, q == S1 && kv.is_replicated() ? P : kv}};
}

std::vector<ValueType> AttentionGrad::infer(const MeshAxes&, Types inputs) const {
  require_inputs(inputs, 7);
  check_operands(forward_.shape(), inputs);
  require(inputs[4].shape == inputs[0].shape && inputs[6].shape == inputs[0].shape,
          "the gradient does not fit the output");
  return {{inputs[0].dtype, inputs[0].shape, {}}, {inputs[1].dtype, inputs[1].shape, {}}};
}

void AttentionGrad::gradient(GradientContext&) const { not_differentiable(*this); }
Work AttentionGrad::work(Types inputs, Types outputs) const { return streaming_work(inputs, outputs); }

std::vector<Alias> AttentionStep::aliases() const {
  if (first()) return {};
  if (result() == StepResult::rounded) return {{1, 5}};
  return {{0, 4}, {1, 5}};
}

Placed AttentionStep::place(const MeshAxes& mesh, int axis, AxisPlacements inputs, Types types) const {
  const Placed out = composite().place(mesh, axis, inputs.first(4), types.first(4));
  if (!out || (!first() && (inputs[4] != inputs[0] || inputs[5] != inputs[0]))) return std::nullopt;
  return out;
}

std::vector<ValueType> AttentionStep::infer(const MeshAxes& mesh, Types inputs) const {
  require_inputs(inputs, first() ? 4 : 6);
  std::vector<ValueType> outputs = composite().infer(mesh, inputs.first(4));
  if (result() == StepResult::running) outputs[0].dtype = wide(outputs[0].dtype);
  return outputs;
}

void AttentionStep::gradient(GradientContext&) const { not_differentiable(*this); }
Work AttentionStep::work(Types inputs, Types outputs) const {
  return attention_work(composite(), blocks(), inputs, outputs, 2);
}

std::vector<Alias> AttentionStepGrad::aliases() const {
  if (first() || result() == StepResult::rounded) return {};
  return {{0, 7}};
}

Placed AttentionStepGrad::place(const MeshAxes& mesh, int axis, AxisPlacements inputs, Types types) const {
  if (!first() && inputs[7] != inputs[0]) return std::nullopt;
  return AttentionGrad(composite()).place(mesh, axis, inputs.first(7), types.first(7));
}

std::vector<ValueType> AttentionStepGrad::infer(const MeshAxes& mesh, Types inputs) const {
  require_inputs(inputs, first() ? 7 : 8);
  std::vector<ValueType> outputs = AttentionGrad(composite()).infer(mesh, inputs.first(7));
  if (result() == StepResult::running) outputs[0].dtype = wide(outputs[0].dtype);
  if (result() == StepResult::running || !first()) outputs[1].dtype = wide(outputs[1].dtype);
  return outputs;
}

void AttentionStepGrad::gradient(GradientContext&) const { not_differentiable(*this); }
Work AttentionStepGrad::work(Types inputs, Types outputs) const {
  return attention_work(composite(), blocks(), inputs, outputs, 5);
}

}  // namespace annulus
