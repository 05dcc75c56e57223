#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/execute/kernel.h"
#include "runtime/ops/matmul.h"
#include "runtime/program/program.h"

namespace annulus {

/// What a library's choice of an algorithm for a product depends on.
struct ProductShape {
  Matmul::Form form = Matmul::Form::nn;
  Matmul::Sizes sizes;
  DType operands = DType::f32, result = DType::f32;
  ProductEpilogue epilogue;
  std::uint32_t alignment = 16;  ///< a power of two that divides all addresses

  auto operator<=>(const ProductShape&) const = default;
  bool is_empty() const { return sizes.m == 0 || sizes.n == 0 || sizes.k == 0; }
  /// `nn + bias, gelu tanh of 1024 x 3072 x 768 (m x n x k), bf16 to bf16, aligned to 16`.
  std::string str() const;
};

ProductShape shape_of(const Matmul& op, const Shape& a, const Shape& b, DType operands);
/// The products of a program, each shape once, in the order of its ops.
std::vector<ProductShape> products_of(const Program& program);

/// What cuBLASLt may do of a product's epilogue, the most first and the least last: the bare product, whose type and
/// addend (as beta c) it always takes. Bias, and GELU by tanh where c is a half; what keeps or reads GELU's input wants
/// rows of a multiple of 8 elements; GELU's gradient comes without a bias.
std::vector<ProductEpilogue> library_epilogues(const ProductShape& shape);

/// The output that a library writes which does `done` of the op's epilogue.
inline std::size_t library_output(const Matmul& op, const ProductEpilogue& done) {
  return done.finish == ProductEpilogue::Finish::none ? op.unfinished_output() : 0;
}

/// What is left of the op's epilogue behind a library that did `done` of it: calls `run(kind, arguments)` for each of
/// the kinds that do it.
template <class Run>
void run_rest_of_epilogue(const Matmul& op, const ProductEpilogue& done, const KernelArguments& arguments,
                          const Run& run) {
  const Tensor& c = arguments.outputs[op.unfinished_output()];
  const auto call = [&](const auto& kind, std::span<const Tensor> from, const Tensor& to) {
    run(kind, KernelArguments{from, {&to, 1}, nullptr, 0, arguments.counters});
  };
  if (op.bias() != done.bias) call(AddBias(), std::array{c, arguments.inputs[2]}, c);
  if (op.finish() == done.finish) return;
  const Activation activation = op.epilogue().activation;
  if (op.finish() == ProductEpilogue::Finish::gelu_slope)
    call(GeluGrad(activation), std::array{arguments.inputs[op.slope_input()], c}, arguments.outputs[0]);
  else
    call(Gelu(activation), std::array{c}, arguments.outputs[0]);
}

}  // namespace annulus
