#include "runtime/ops/cross_entropy.h"

#include <fmt/format.h>

namespace annulus {
namespace {

using namespace placements;

std::vector<ValueType> one_per_row(OpDefinition::Types inputs, std::size_t count) {
  require_inputs(inputs, count);
  require(inputs[0].shape.rank() == 2, "logits are a matrix of rows");
  for (std::size_t i = 1; i < count; ++i)
    require(inputs[i].shape == Shape({inputs[0].shape[0]}), fmt::format("operand {} has not one element per row", i));
  return {{wide(inputs[0].dtype), {inputs[0].shape[0]}, {}}};
}

}  // namespace

Placed RowMax::place(const MeshAxes&, int, AxisPlacements inputs, Types) const {
  return match(inputs, {{{R}, {R}}, {{S0}, {S0}}, {{S1}, {Max}}});
}
std::vector<ValueType> RowMax::infer(const MeshAxes&, Types inputs) const { return one_per_row(inputs, 1); }
void RowMax::gradient(GradientContext&) const {}  // the shift cancels: the loss rule gives the whole gradient
Work RowMax::work(Types inputs, Types outputs) const { return streaming_work(inputs, outputs); }

Placed RowSumExp::place(const MeshAxes&, int, AxisPlacements inputs, Types) const {
  return match(inputs, {{{R, R}, {R}}, {{S0, S0}, {S0}}, {{S1, R}, {P}}});
}
std::vector<ValueType> RowSumExp::infer(const MeshAxes&, Types inputs) const { return one_per_row(inputs, 2); }
void RowSumExp::gradient(GradientContext&) const {}
Work RowSumExp::work(Types inputs, Types outputs) const { return streaming_work(inputs, outputs); }

Placed RowTarget::place(const MeshAxes&, int, AxisPlacements inputs, Types) const {
  return match(inputs, {{{R, R}, {R}}, {{S0, S0}, {S0}}, {{S1, R}, {P}}});
}
std::vector<ValueType> RowTarget::infer(const MeshAxes&, Types inputs) const { return one_per_row(inputs, 2); }
void RowTarget::gradient(GradientContext&) const {}
Work RowTarget::work(Types inputs, Types outputs) const { return streaming_work(inputs.subspan(1), outputs); }

Placed RowSoftmax::place(const MeshAxes&, int, AxisPlacements inputs, Types) const {
  return match(inputs, {{{R, R}, {R, R, R}}, {{S0, S0}, {S0, S0, S0}}});
}
std::vector<ValueType> RowSoftmax::infer(const MeshAxes&, Types inputs) const {
  return std::vector(3, one_per_row(inputs, 2).front());
}
void RowSoftmax::gradient(GradientContext&) const { not_differentiable(*this); }
Work RowSoftmax::work(Types inputs, Types outputs) const { return streaming_work(inputs, outputs); }

Placed Nll::place(const MeshAxes&, int, AxisPlacements inputs, Types) const {
  if (inputs.size() == 7 && inputs[6] != inputs[5]) return std::nullopt;
  return match(inputs.first(6),
               {{{R, R, R, R, R, R}, {R}}, {{S0, S0, S0, S0, S0, S0}, {P}}, {{S1, R, R, R, R, R}, {R}}});
}
std::vector<ValueType> Nll::infer(const MeshAxes&, Types inputs) const {
  one_per_row(inputs, gradient_weights_ == GradientWeights::separate ? 7 : 6);
  return {{DType::f64, {2}, {}}};
}
void Nll::gradient(GradientContext& context) const {
  const int weights = gradient_weights_ == GradientWeights::separate ? 6 : 5;
  context.give(0, context
                      .emit(std::make_shared<NllGrad>(shard()), {context.input(0), context.input(1), context.input(2),
                                                                 context.input(4), context.input(weights)})
                      .front());
}
Work Nll::work(Types inputs, Types outputs) const { return streaming_work(inputs.subspan(1, 5), outputs); }

Placed NllGrad::place(const MeshAxes&, int, AxisPlacements inputs, Types) const {
  return match(inputs, {{{R, R, R, R, R}, {R}}, {{S0, S0, S0, S0, S0}, {S0}}, {{S1, R, R, R, R}, {S1}}});
}
std::vector<ValueType> NllGrad::infer(const MeshAxes&, Types inputs) const {
  one_per_row(inputs, 5);
  return {{inputs[0].dtype, inputs[0].shape, {}}};
}
void NllGrad::gradient(GradientContext&) const { not_differentiable(*this); }
Work NllGrad::work(Types inputs, Types outputs) const { return streaming_work(inputs, outputs); }

}  // namespace annulus
