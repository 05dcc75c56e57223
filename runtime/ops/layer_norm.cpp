#include "runtime/ops/layer_norm.h"

#include <fmt/format.h>

namespace annulus {

std::string LayerNorm::attributes() const { return fmt::format("epsilon {}", epsilon_); }

Placed LayerNorm::place(const MeshAxes&, int, AxisPlacements inputs, Types) const {
  using namespace placements;
  return match(inputs, {{{R, R, R}, {R, R}}, {{S0, R, R}, {S0, S0}}});
}

std::vector<ValueType> LayerNorm::infer(const MeshAxes&, Types inputs) const {
  require_inputs(inputs, 3);
  const Shape& x = inputs[0].shape;
  require(x.rank() == 2, "layer norm takes a matrix of rows");
  require(
      inputs[1].shape == Shape({x[1]}) && inputs[2].shape == Shape({x[1]}),
      fmt::format("gamma {} and beta {} do not fit rows of {}", inputs[1].shape.str(), inputs[2].shape.str(), x[1]));
  return {{inputs[0].dtype, x, {}}, {wide(inputs[0].dtype), {x[0], 2}, {}}};
}

void LayerNorm::gradient(GradientContext& context) const {
  const auto gradients = context.emit(std::make_shared<LayerNormGrad>(),
                                      {context.input(0), context.input(1), context.output(1), context.gradient()});
  for (int i = 0; i < 3; ++i) context.give(i, gradients[static_cast<std::size_t>(i)]);
}

Work LayerNorm::work(Types inputs, Types outputs) const { return streaming_work(inputs, outputs); }

Placed LayerNormGrad::place(const MeshAxes&, int, AxisPlacements inputs, Types) const {
  using namespace placements;
  return match(inputs, {{{R, R, R, R}, {R, R, R}}, {{S0, R, S0, S0}, {S0, P, P}}, {{R, R, R, P}, {P, P, P}}});
}

std::vector<ValueType> LayerNormGrad::infer(const MeshAxes&, Types inputs) const {
  require_inputs(inputs, 4);
  require(inputs[0].shape == inputs[3].shape, "the gradient does not fit the input");
  const ValueType weights{wide(inputs[0].dtype), inputs[1].shape, {}};
  return {{inputs[0].dtype, inputs[0].shape, {}}, weights, weights};
}

void LayerNormGrad::gradient(GradientContext&) const { not_differentiable(*this); }
Work LayerNormGrad::work(Types inputs, Types outputs) const { return streaming_work(inputs, outputs); }

}  // namespace annulus
