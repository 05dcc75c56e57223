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

std::string LayerNormGrad::attributes() const {
  constexpr const char* kAddends[] = {"", "+ addend", "in place"};
  return kAddends[static_cast<int>(addend_)];
}
std::vector<Alias> LayerNormGrad::aliases() const {
  if (addend_ != Addend::in_place) return {};
  return {{0, 4}};
}

Placed LayerNormGrad::place(const MeshAxes& mesh, int axis, AxisPlacements inputs, Types types) const {
  using namespace placements;
  Placed placed =
      match(inputs.first(4), {{{R, R, R, R}, {R, R, R}}, {{S0, R, S0, S0}, {S0, P, P}}, {{R, R, R, P}, {P, P, P}}});
  if (!placed || addend_ == Addend::none) return placed;
  const Placed sum = Add().place(mesh, axis, std::vector{inputs[4], placed->front()}, types);
  if (!sum) return std::nullopt;
  placed->front() = sum->front();
  return placed;
}

std::vector<ValueType> LayerNormGrad::infer(const MeshAxes& mesh, Types inputs) const {
  require_inputs(inputs, addend_ == Addend::none ? 4 : 5);
  require(inputs[0].shape == inputs[3].shape, "the gradient does not fit the input");
  const ValueType weights{wide(inputs[0].dtype), inputs[1].shape, {}};
  ValueType dx{inputs[0].dtype, inputs[0].shape, {}};
  if (addend_ != Addend::none) dx = Add().infer(mesh, std::vector{inputs[4], dx}).front();
  return {dx, weights, weights};
}

void LayerNormGrad::gradient(GradientContext&) const { not_differentiable(*this); }
Work LayerNormGrad::work(Types inputs, Types outputs) const { return streaming_work(inputs, outputs); }

std::string ResidualNorm::attributes() const {
  return fmt::format("{}{}{}", norm_.attributes(), bias_ == Bias::none ? "" : ", bias",
                     dropout_ ? ", dropout " + dropout_->attributes() : "");
}

Placed ResidualNorm::place(const MeshAxes& mesh, int axis, AxisPlacements inputs, Types types) const {
  Placed x{{inputs[1]}};
  const auto then = [&](const OpDefinition& next, const std::vector<Placement>& operands) {
    x = next.place(mesh, axis, operands, types);
  };
  if (bias_ != Bias::none) then(AddBias(), {x->front(), inputs[4]});
  if (x && dropout_) then(*dropout_, {x->front(), inputs[row_ids_input()], inputs[row_ids_input() + 1]});
  if (x) then(Add(), {inputs[0], x->front()});
  if (!x) return x;
  const Placement sum = x->front();
  then(norm_, {sum, inputs[2], inputs[3]});
  if (x) x->insert(x->begin(), sum);
  return x;
}

std::vector<ValueType> ResidualNorm::infer(const MeshAxes& mesh, Types inputs) const {
  require_inputs(inputs, input_count());
  std::vector<ValueType> x{inputs[1]};
  const auto then = [&](const OpDefinition& next, const std::vector<ValueType>& operands) {
    x = next.infer(mesh, operands);
  };
  if (bias_ != Bias::none) then(AddBias(), {x.front(), inputs[4]});
  if (dropout_) then(*dropout_, {x.front(), inputs[row_ids_input()], inputs[row_ids_input() + 1]});
  then(Add(), {inputs[0], x.front()});
  const ValueType sum = x.front();
  then(norm_, {sum, inputs[2], inputs[3]});
  x.insert(x.begin(), sum);
  return x;
}

void ResidualNorm::gradient(GradientContext&) const { not_differentiable(*this); }
Work ResidualNorm::work(Types inputs, Types outputs) const { return streaming_work(inputs, outputs); }

}  // namespace annulus
