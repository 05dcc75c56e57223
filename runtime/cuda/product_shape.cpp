#include "runtime/cuda/product_shape.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "runtime/ops/op_table.h"

namespace annulus {

using Bias = ProductEpilogue::Bias;
using Finish = ProductEpilogue::Finish;

std::string ProductShape::str() const {
  return fmt::format("{} of {} x {} x {} (m x n x k), {} to {}, aligned to {}", Matmul(form, epilogue).attributes(),
                     sizes.m, sizes.n, sizes.k, name_of(operands), name_of(result), alignment);
}

ProductShape shape_of(const Matmul& op, const Shape& a, const Shape& b, DType operands) {
  return {.form = op.form(),
          .sizes = op.sizes(a, b),
          .operands = operands,
          .result = op.output() == ProductEpilogue::Output::wide ? wide(operands) : operands,
          .epilogue = op.epilogue()};
}

std::vector<ProductShape> products_of(const Program& program) {
  std::vector<ProductShape> shapes;
  std::set<ProductShape> met;
  for (const Op& op : program.ops()) {
    const auto* product = as<Matmul>(*op.definition);
    if (!product) continue;
    const ValueType &a = program.type(op.inputs[0]), &b = program.type(op.inputs[1]);
    const ProductShape shape = shape_of(*product, a.shape, b.shape, a.dtype);
    if (!shape.is_empty() && met.insert(shape).second) shapes.push_back(shape);
  }
  return shapes;
}

namespace {

bool library_finishes(const ProductShape& shape) {
  const ProductEpilogue& epilogue = shape.epilogue;
  if (epilogue.finish == Finish::none || epilogue.activation != Activation::gelu_tanh) return false;
  if (!is_half(shape.result) || shape.result != shape.operands) return false;
  constexpr std::int64_t kColumns = 8;
  if (epilogue.finish != Finish::gelu && shape.sizes.n % kColumns != 0) return false;
  return epilogue.finish != Finish::gelu_slope || epilogue.bias == Bias::none;
}

}  // namespace

std::vector<ProductEpilogue> library_epilogues(const ProductShape& shape) {
  std::vector<ProductEpilogue> all;
  ProductEpilogue epilogue = shape.epilogue;
  if (library_finishes(shape)) all.push_back(epilogue);
  epilogue.finish = Finish::none;
  if (epilogue.bias != Bias::none) all.push_back(epilogue);
  epilogue.bias = Bias::none;
  all.push_back(epilogue);
  return all;
}

}  // namespace annulus
