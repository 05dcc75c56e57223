#include "runtime/ops/matmul.h"

#include <fmt/format.h>

namespace annulus {

std::string Matmul::attributes() const {
  switch (form_) {
    case Form::nn:
      return "nn";
    case Form::nt:
      return "nt";
    case Form::tn:
      return "tn";
  }
  return "?";
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

Placed Matmul::place(const MeshAxes&, int, AxisPlacements inputs, Types) const {
  using namespace placements;
  const Placement a = inputs[0], b = inputs[1];
  if (a.is_partial_max() || b.is_partial_max()) return std::nullopt;
  if (a.is_partial() || b.is_partial()) {
    if (a.is_replicated() || b.is_replicated()) return {{P}};
    return std::nullopt;
  }
  if (a.is_replicated() && b.is_replicated()) return {{R}};
  // A sharded dim is summed over, or it is a free one, which keeps its place in the output.
  const bool a_summed = a.is_sharded() && (form_ == Form::tn) == (a.dim == 0);
  const bool b_summed = b.is_sharded() && (form_ == Form::nt) == (b.dim != 0);
  if (a_summed && b_summed) {
    const bool same_part = form_ == Form::nn || a.dim == b.dim;
    return same_part && a.laid_out == b.laid_out ? Placed{{P}} : std::nullopt;
  }
  if (a_summed || b_summed || (a.is_sharded() && b.is_sharded())) return std::nullopt;
  Placement out = a.is_sharded() ? a : b;
  if (a.is_sharded())
    out.dim = 0;
  else if (form_ == Form::nt)
    out.dim = 1;
  return {{out}};
}

std::vector<ValueType> Matmul::infer(const MeshAxes&, Types inputs) const {
  require_inputs(inputs, 2);
  const Shape &a = inputs[0].shape, &b = inputs[1].shape;
  require(inputs[0].dtype == inputs[1].dtype && is_float(inputs[0].dtype), "operands have different element types");
  require(a.rank() >= 2 && b.rank() >= 2, fmt::format("operands {} and {} are not matrices", a.str(), b.str()));
  const std::int64_t a_inner = form_ == Form::tn ? a.rows() : a.columns();
  const std::int64_t b_inner = form_ == Form::nt ? b.columns() : b.rows();
  require(a_inner == b_inner,
          fmt::format("{} and {} do not fit ({}: {} against {})", a.str(), b.str(), attributes(), a_inner, b_inner));
  require(form_ == Form::nt || a.rank() == 2, fmt::format("the left operand {} must have 2 dims", a.str()));
  Shape out{form_ == Form::tn ? a[1] : a[0]};
  if (form_ == Form::nt)
    out.append(b[0]);
  else
    for (int dim = 1; dim < b.rank(); ++dim) out.append(b[dim]);
  return {{inputs[0].dtype, out, {}}};
}

void Matmul::gradient(GradientContext& context) const {
  const ValueId a = context.input(0), b = context.input(1), dy = context.gradient();
  const auto product = [&](Form form, ValueId x, ValueId y) {
    return context.emit(std::make_shared<Matmul>(form), {x, y}).front();
  };
  switch (form_) {
    case Form::nn:
      context.give(0, product(Form::nt, dy, b));
      context.give(1, product(Form::tn, a, dy));
      return;
    case Form::nt:
      context.give(0, product(Form::nn, dy, b));
      context.give(1, product(Form::tn, dy, a));
      return;
    case Form::tn:
      context.give(0, product(Form::nt, b, dy));
      context.give(1, product(Form::nn, a, dy));
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
