#include "runtime/ops/embed.h"

#include "runtime/ops/elementwise.h"

namespace annulus {

Placed Embed::place(const MeshAxes&, int, AxisPlacements inputs, Types) const {
  using namespace placements;
  if (inputs[1].laid_out) return std::nullopt;  // a shard of the table is known by its first id
  return match(inputs, {{{R, R}, {R}}, {{R, S0}, {P}}, {{S0, R}, {S0}}});
}

std::vector<ValueType> Embed::infer(const MeshAxes&, Types inputs) const {
  require_inputs(inputs, 2);
  require(inputs[0].dtype == DType::i32 && inputs[0].shape.rank() == 1, "ids must be a vector of i32");
  require(inputs[1].shape.rank() == 2, "an embedding table has 2 dims");
  return {{inputs[1].dtype, {inputs[0].shape[0], inputs[1].shape[1]}, {}}};
}

void Embed::gradient(GradientContext& context) const {
  context.give(
      1, context.emit(std::make_shared<EmbedGrad>(offset_), {context.input(0), context.input(1), context.gradient()})
             .front());
}

Work Embed::work(Types inputs, Types outputs) const {
  Work work = streaming_work(inputs.first(1), outputs);
  work.bytes_read += work.bytes_written;
  return work;
}

std::vector<Alias> EmbedGrad::aliases() const {
  if (target_ == Target::fresh) return {};
  return {{0, 3}};
}

Placed EmbedGrad::place(const MeshAxes& mesh, int axis, AxisPlacements inputs, Types types) const {
  using namespace placements;
  if (inputs[1].laid_out) return std::nullopt;
  const Placed fresh =
      match(inputs.first(3), {{{R, R, R}, {R}}, {{R, S0, R}, {S0}}, {{S0, R, S0}, {P}}, {{R, R, P}, {P}}});
  if (!fresh || target_ == Target::fresh) return fresh;
  return Accumulate().place(mesh, axis, std::vector{inputs[3], fresh->front()}, types);
}

std::vector<ValueType> EmbedGrad::infer(const MeshAxes& mesh, Types inputs) const {
  require_inputs(inputs, target_ == Target::fresh ? 3 : 4);
  require(inputs[2].shape == Shape({inputs[0].shape[0], inputs[1].shape[1]}),
          "the gradient does not fit ids and table");
  const ValueType fresh{wide(inputs[1].dtype), inputs[1].shape, {}};
  if (target_ == Target::fresh) return {fresh};
  return Accumulate().infer(mesh, std::vector{inputs[3], fresh});
}

void EmbedGrad::gradient(GradientContext&) const { not_differentiable(*this); }
Work EmbedGrad::work(Types inputs, Types outputs) const {
  const ValueType &ids = inputs[0], &rows = inputs[2];
  if (target_ == Target::fresh) return streaming_work(std::vector{ids, rows}, outputs);
  const ValueType sums{outputs[0].dtype, rows.shape, {}};
  return streaming_work(std::vector{ids, rows, sums}, std::vector{sums});
}

}  // namespace annulus
