#include "runtime/ops/elementwise.h"

#include <fmt/format.h>

namespace annulus {
namespace {

std::vector<ValueType> same_as_first(OpDefinition::Types inputs) {
  for (const ValueType& type : inputs)
    require(type.dtype == inputs[0].dtype && type.shape == inputs[0].shape,
            fmt::format("operands {} and {} differ", inputs[0].shape.str(), type.shape.str()));
  return {{inputs[0].dtype, inputs[0].shape, {}}};
}

}  // namespace

Placed Add::place(const MeshAxes&, int, AxisPlacements inputs, Types) const {
  return all_alike(inputs, 1, {Placement::partial_sum()});
}
std::vector<ValueType> Add::infer(const MeshAxes&, Types inputs) const {
  require_inputs(inputs, 2);
  return same_as_first(inputs);
}
void Add::gradient(GradientContext& context) const {
  context.give(0, context.gradient());
  context.give(1, context.gradient());
}
Work Add::work(Types inputs, Types outputs) const { return streaming_work(inputs, outputs); }

Placed AddBias::place(const MeshAxes&, int, AxisPlacements inputs, Types) const {
  const Placement x = inputs[0], b = inputs[1];
  if (b.is_replicated() && (x.is_replicated() || x.is_sharded(0))) return {{x}};
  if (b.is_sharded() && x.is_sharded(b.dim + 1) && x.laid_out == b.laid_out) return {{x}};
  return std::nullopt;
}
std::vector<ValueType> AddBias::infer(const MeshAxes&, Types inputs) const {
  require_inputs(inputs, 2);
  const Shape &x = inputs[0].shape, &b = inputs[1].shape;
  bool fits = x.rank() == b.rank() + 1 && inputs[0].dtype == inputs[1].dtype;
  for (int dim = 0; fits && dim < b.rank(); ++dim) fits = x[dim + 1] == b[dim];
  require(fits, fmt::format("a bias {} does not fit the rows of {}", b.str(), x.str()));
  return {{inputs[0].dtype, x, {}}};
}
void AddBias::gradient(GradientContext& context) const {
  context.give(0, context.gradient());
  context.give(1, context.emit(std::make_shared<ColumnSum>(), {context.gradient()}).front());
}
Work AddBias::work(Types inputs, Types outputs) const { return streaming_work(inputs, outputs); }

Placed ColumnSum::place(const MeshAxes&, int, AxisPlacements inputs, Types) const {
  const Placement x = inputs[0];
  if (x.is_replicated() || x.is_partial_sum()) return {{x}};
  if (x.is_sharded(0)) return {{Placement::partial_sum()}};
  if (x.is_sharded()) return {{{x.kind, static_cast<std::int8_t>(x.dim - 1), x.laid_out}}};
  return std::nullopt;
}
std::vector<ValueType> ColumnSum::infer(const MeshAxes&, Types inputs) const {
  require_inputs(inputs, 1);
  require(inputs[0].shape.rank() >= 1, "a scalar has no rows");
  Shape out;
  for (int dim = 1; dim < inputs[0].shape.rank(); ++dim) out.append(inputs[0].shape[dim]);
  return {{wide(inputs[0].dtype), out, {}}};
}
void ColumnSum::gradient(GradientContext&) const { not_differentiable(*this); }
Work ColumnSum::work(Types inputs, Types outputs) const { return streaming_work(inputs, outputs); }

Placed Gelu::place(const MeshAxes&, int, AxisPlacements inputs, Types) const { return all_alike(inputs, 1); }
std::vector<ValueType> Gelu::infer(const MeshAxes&, Types inputs) const {
  require_inputs(inputs, 1);
  return same_as_first(inputs);
}
void Gelu::gradient(GradientContext& context) const {
  context.give(0,
               context.emit(std::make_shared<GeluGrad>(activation_), {context.input(0), context.gradient()}).front());
}
Work Gelu::work(Types inputs, Types outputs) const { return streaming_work(inputs, outputs); }

Placed GeluGrad::place(const MeshAxes&, int, AxisPlacements inputs, Types) const {
  if (inputs[0].is_replicated() && inputs[1].is_partial_sum()) return {{inputs[1]}};
  return all_alike(inputs, 1);
}
std::vector<ValueType> GeluGrad::infer(const MeshAxes&, Types inputs) const {
  require_inputs(inputs, 2);
  return same_as_first(inputs);
}
void GeluGrad::gradient(GradientContext&) const { not_differentiable(*this); }
Work GeluGrad::work(Types inputs, Types outputs) const { return streaming_work(inputs, outputs); }

Placed Accumulate::place(const MeshAxes&, int, AxisPlacements inputs, Types) const {
  return all_alike(inputs, 1, {Placement::partial_sum()});
}
std::vector<ValueType> Accumulate::infer(const MeshAxes&, Types inputs) const {
  require_inputs(inputs, 2);
  return same_as_first(inputs);
}
void Accumulate::gradient(GradientContext&) const { not_differentiable(*this); }
Work Accumulate::work(Types inputs, Types outputs) const { return streaming_work(inputs, outputs); }

Placed Cast::place(const MeshAxes&, int, AxisPlacements inputs, Types) const {
  return all_alike(inputs, 1, {Placement::partial_sum()});
}
std::vector<ValueType> Cast::infer(const MeshAxes&, Types inputs) const {
  require_inputs(inputs, 1);
  require(is_float(inputs[0].dtype) && is_float(to_), "only floats are cast");
  return {{to_, inputs[0].shape, {}}};
}
void Cast::gradient(GradientContext& context) const {
  context.give(
      0, context.emit(std::make_shared<Cast>(context.type(context.input(0)).dtype), {context.gradient()}).front());
}
Work Cast::work(Types inputs, Types outputs) const { return streaming_work(inputs, outputs); }

Placed Zero::place(const MeshAxes&, int axis, AxisPlacements inputs, Types) const {
  if (summands_.contains(axis)) return inputs[0].is_replicated() ? Placed{{Placement::partial_sum()}} : std::nullopt;
  return all_alike(inputs, 1, {Placement::partial_sum()});
}
std::vector<ValueType> Zero::infer(const MeshAxes&, Types inputs) const {
  require_inputs(inputs, 1);
  return {{fresh_ ? wide(inputs[0].dtype) : inputs[0].dtype, inputs[0].shape, {}}};
}
void Zero::gradient(GradientContext&) const { not_differentiable(*this); }
Work Zero::work(Types, Types outputs) const { return streaming_work({}, outputs); }

std::string Dropout::attributes() const { return fmt::format("rate {}", mask_.rate); }
Placed Dropout::place(const MeshAxes&, int, AxisPlacements inputs, Types) const {
  using namespace placements;
  return match(inputs, {{{R, R, R}, {R}}, {{S0, S0, R}, {S0}}, {{S1, R, R}, {S1}}, {{P, R, R}, {P}}});
}
std::vector<ValueType> Dropout::infer(const MeshAxes&, Types inputs) const {
  require_inputs(inputs, 3);
  require(mask_.rate >= 0 && mask_.rate < 1, fmt::format("dropout rate {} is not in [0, 1)", mask_.rate));
  require(inputs[0].shape.rank() == 2, "dropout takes a matrix of rows");
  require(inputs[1].dtype == DType::i32 && inputs[1].shape == Shape({inputs[0].shape[0], 2}),
          "row ids do not fit the rows");
  return {{inputs[0].dtype, inputs[0].shape, {}}};
}
void Dropout::gradient(GradientContext& context) const {
  context.give(
      0,
      context.emit(std::make_shared<Dropout>(*this), {context.gradient(), context.input(1), context.input(2)}).front());
}
Work Dropout::work(Types inputs, Types outputs) const { return streaming_work(inputs, outputs); }

}  // namespace annulus
