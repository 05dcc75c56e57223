#include "runtime/ops/matmul.h"

#include <fmt/format.h>

namespace annulus {

Matmul::Matmul(Form form, ProductEpilogue epilogue) : form_(form), epilogue_(epilogue) {
  if (finish() != Finish::none && addend() != Addend::none) throw InternalError("matmul: a finish behind an addend");
}

std::string Matmul::attributes() const {
  constexpr const char* kForms[] = {"nn", "nt", "tn"};
  constexpr const char* kAddends[] = {"", " + addend", " in place"};
  constexpr const char* kFinishes[] = {"", ", gelu", ", gelu and input", ", gelu slope"};
  return fmt::format("{}{}{}{}{}{}", kForms[static_cast<int>(form_)], bias() == Bias::none ? "" : " + bias",
                     kAddends[static_cast<int>(addend())], output() == Output::wide ? ", wide" : "",
                     kFinishes[static_cast<int>(finish())],
                     finish() == Finish::none ? "" : " " + Gelu(epilogue_.activation).attributes());
}

std::vector<Alias> Matmul::aliases() const {
  if (addend() != Addend::in_place) return {};
  return {{0, static_cast<int>(addend_input())}};
}

Matmul::Sizes Matmul::sizes(const Shape& a, const Shape& b) const {
  switch (form_) {
    case Form::nn:
      return {a.rows(), b.columns(), a.columns()};
    case Form::nt:
      return {a.rows(), b.rows(), a.columns()};
    case Form::tn:
      return {a.columns(), b.columns(), a.rows()};
  }
  return {};
}

namespace {

/// The placement of the bare product.
Placed place_product(Matmul::Form form, Placement a, Placement b) {
  using Form = Matmul::Form;
  using namespace placements;
  if (a.is_partial_max() || b.is_partial_max()) return std::nullopt;
  if (a.is_partial() || b.is_partial()) {
    if (a.is_replicated() || b.is_replicated()) return {{P}};
    return std::nullopt;
  }
  if (a.is_replicated() && b.is_replicated()) return {{R}};
  // A sharded dim is summed over, or it is a free one, which keeps its place in the output.
  const bool a_summed = a.is_sharded() && (form == Form::tn) == (a.dim == 0);
  const bool b_summed = b.is_sharded() && (form == Form::nt) == (b.dim != 0);
  if (a_summed && b_summed) {
    const bool same_part = form == Form::nn || a.dim == b.dim;
    return same_part && a.laid_out == b.laid_out ? Placed{{P}} : std::nullopt;
  }
  if (a_summed || b_summed || (a.is_sharded() && b.is_sharded())) return std::nullopt;
  Placement out = a.is_sharded() ? a : b;
  if (a.is_sharded())
    out.dim = 0;
  else if (form == Form::nt)
    out.dim = 1;
  return {{out}};
}

/// Type of the bare product.
ValueType product_type(const Matmul& op, const ValueType& x, const ValueType& y) {
  using Form = Matmul::Form;
  const Shape &a = x.shape, &b = y.shape;
  require(x.dtype == y.dtype && is_float(x.dtype), "operands have different element types");
  require(a.rank() >= 2 && b.rank() >= 2, fmt::format("operands {} and {} are not matrices", a.str(), b.str()));
  const std::int64_t a_inner = op.form() == Form::tn ? a.rows() : a.columns();
  const std::int64_t b_inner = op.form() == Form::nt ? b.columns() : b.rows();
  require(a_inner == b_inner,
          fmt::format("{} and {} do not fit ({}: {} against {})", a.str(), b.str(), op.attributes(), a_inner, b_inner));
  require(op.form() == Form::nt || a.rank() == 2, fmt::format("the left operand {} must have 2 dims", a.str()));
  Shape out{op.form() == Form::tn ? a[1] : a[0]};
  if (op.form() == Form::nt)
    out.append(b[0]);
  else
    for (int dim = 1; dim < b.rank(); ++dim) out.append(b[dim]);
  return {op.output() == Matmul::Output::wide ? wide(x.dtype) : x.dtype, out, {}};
}

}  // namespace

// The rules of a product with an epilogue are those of the kinds that it stands for, one behind the other.

Placed Matmul::place(const MeshAxes& mesh, int axis, AxisPlacements inputs, Types types) const {
  Placed placed = place_product(form_, inputs[0], inputs[1]);
  const auto then = [&](const OpDefinition& next, std::vector<Placement> operands) {
    placed = next.place(mesh, axis, operands, types);
  };
  if (placed && bias() != Bias::none) then(AddBias(), {placed->front(), inputs[2]});
  if (placed && addend() != Addend::none) then(Add(), {placed->front(), inputs[addend_input()]});
  if (placed && finish() == Finish::gelu_slope)
    then(GeluGrad(epilogue_.activation), {inputs[slope_input()], placed->front()});
  if (placed && (finish() == Finish::gelu || finish() == Finish::gelu_and_input))
    then(Gelu(epilogue_.activation), {placed->front()});
  if (placed && finish() == Finish::gelu_and_input) placed->push_back(placed->front());
  return placed;
}

std::vector<ValueType> Matmul::infer(const MeshAxes& mesh, Types inputs) const {
  require_inputs(inputs, input_count());
  std::vector<ValueType> result{product_type(*this, inputs[0], inputs[1])};
  if (bias() != Bias::none) result = AddBias().infer(mesh, std::vector{result.front(), inputs[2]});
  if (addend() != Addend::none) result = Add().infer(mesh, std::vector{result.front(), inputs[addend_input()]});
  if (finish() == Finish::gelu_slope)
    result = GeluGrad(epilogue_.activation).infer(mesh, std::vector{inputs[slope_input()], result.front()});
  if (finish() == Finish::gelu_and_input) result.push_back(result.front());
  return result;
}

void Matmul::gradient(GradientContext& context) const {
  if (finish() == Finish::gelu_slope) not_differentiable(*this);
  const ValueId a = context.input(0), b = context.input(1);
  ValueId dy = context.gradient();
  const auto give = [&](int input, Form form, ValueId x, ValueId y) {
    // Where nothing is a half, wide says nothing.
    const bool is_wide = context.is_parameter(input) && is_half(context.type(dy).dtype);
    const ProductEpilogue epilogue{.output = is_wide ? Output::wide : Output::as_operands};
    context.give(input, context.emit(std::make_shared<Matmul>(form, epilogue), {x, y}).front());
  };
  if (finish() != Finish::none) {
    ValueId x = kNoValue;
    if (finish() == Finish::gelu_and_input) {
      x = context.output(1);
    } else {
      std::vector<ValueId> inputs;
      for (int i = 0; i < context.input_count(); ++i) inputs.push_back(context.input(i));
      x = context.emit(std::make_shared<Matmul>(form_, ProductEpilogue{.bias = bias(), .output = output()}), inputs)
              .front();
    }
    dy = context.emit(std::make_shared<GeluGrad>(epilogue_.activation), {x, dy}).front();
  }
  if (bias() != Bias::none) context.give(2, context.emit(std::make_shared<ColumnSum>(), {dy}).front());
  if (addend() != Addend::none) context.give(static_cast<int>(addend_input()), dy);
  switch (form_) {
    case Form::nn:
      give(0, Form::nt, dy, b);
      give(1, Form::tn, a, dy);
      return;
    case Form::nt:
      give(0, Form::nn, dy, b);
      give(1, Form::tn, dy, a);
      return;
    case Form::tn:
      give(0, Form::nt, b, dy);
      give(1, Form::nn, a, dy);
      return;
  }
}

Work Matmul::work(Types inputs, Types outputs) const {
  Work work = streaming_work(inputs, outputs);
  const Sizes size = sizes(inputs[0].shape, inputs[1].shape);
  work.flops = 2.0 * static_cast<double>(size.m) * static_cast<double>(size.n) * static_cast<double>(size.k);
  return work;
}

}  // namespace annulus
