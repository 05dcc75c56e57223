#include "runtime/ops/elementwise.h"

#include <numbers>

#include "runtime/ops/collectives.h"
#include "tests/cpu/support.h"

namespace annulus::testing {
namespace {

template <class T>
class ElementwiseTest : public FloatKernelTest<T> {};
TYPED_TEST_SUITE(ElementwiseTest, FloatTypes);

TYPED_TEST(ElementwiseTest, AddsAndAccumulates) {
  for (std::int64_t count : {this->size(100), std::int64_t{70001}}) {
    Operand a = this->random(this->kType, {count}), b = this->random(this->kType, {count});
    Numbers expected = a.numbers();
    const Numbers added = b.numbers();
    for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += added[i];
    expect_close(this->run(Add(), {a, b})[0].numbers(), expected, this->tolerance(1));
    expect_close(this->run(Accumulate(), {a, b})[0].numbers(), expected, this->tolerance(1));
    expect_close(this->run(Zero(), {a})[0].numbers(), Numbers(expected.size(), 0.0), 0);
  }
}

TYPED_TEST(ElementwiseTest, BiasAndColumnSum) {
  for (int round = 0; round < 10; ++round) {
    const std::int64_t rows = this->size(300), outer = this->size(3), inner = this->size(90), columns = outer * inner;
    Operand x = this->random(this->kType, {rows, outer, inner}), bias = this->random(this->kType, {outer, inner});
    const Numbers from = x.numbers(), added = bias.numbers();
    Numbers expected = from, sums(static_cast<std::size_t>(columns));
    for (std::size_t i = 0; i < from.size(); ++i) {
      expected[i] += added[i % added.size()];
      sums[i % added.size()] += from[i];
    }
    expect_close(this->run(AddBias(), {x, bias})[0].numbers(), expected, this->tolerance(1));
    expect_close(this->run(ColumnSum(), {x})[0].numbers(), sums, this->tolerance(), {}, usual_sum(rows));
  }
}

TYPED_TEST(ElementwiseTest, SlicesAnyDim) {
  Operand x = this->random(this->kType, {4, 6, 10});
  const Numbers from = x.numbers();
  const std::int64_t extents[] = {4, 6, 10};
  for (int dim = 0; dim < 3; ++dim) {
    for (int index = 0; index < 2; ++index) {
      Numbers expected;
      for (std::int64_t i = 0; i < x.type().shape.elements(); ++i) {
        const std::int64_t at[] = {i / 60, i / 10 % 6, i % 10};
        if (at[dim] / (extents[dim] / 2) == index) expected.push_back(from[static_cast<std::size_t>(i)]);
      }
      Operand y(this->kType, dim == 0 ? Shape{2, 6, 10} : dim == 1 ? Shape{4, 3, 10} : Shape{4, 6, 5});
      const Tensor in = x.tensor(), out = y.tensor();
      this->device_.run(Slice(AxisSet(0), dim, index, 2), {{&in, 1}, {&out, 1}, nullptr, 0, &this->counters_});
      EXPECT_EQ(y.numbers(), expected);
    }
  }
}

double gelu(Activation form, double x) {
  if (form == Activation::gelu_erf) return 0.5 * x * (1 + std::erf(x / std::numbers::sqrt2));
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
}

TYPED_TEST(ElementwiseTest, Gelu) {
  for (const Activation form : {Activation::gelu_tanh, Activation::gelu_erf}) {
    Operand x = this->random(this->kType, {this->size(50), this->size(200)}, 3),
            dy = this->random(this->kType, x.type().shape);
    const Numbers at = x.numbers(), weight = dy.numbers();
    Numbers expected, slope;
    for (std::size_t i = 0; i < at.size(); ++i) {
      const double h = 1e-4;  // the fourth-order difference: exact to 1e-12
      expected.push_back(gelu(form, at[i]));
      slope.push_back(weight[i] *
                      (8 * (gelu(form, at[i] + h) - gelu(form, at[i] - h)) -
                       (gelu(form, at[i] + 2 * h) - gelu(form, at[i] - 2 * h))) /
                      (12 * h));
    }
    expect_close(this->run(Gelu(form), {x})[0].numbers(), expected, this->tolerance(5), "gelu", 1);
    expect_close(this->run(GeluGrad(form), {x, dy})[0].numbers(), slope, std::max(this->tolerance(15), 1e-10), "slope",
                 1);
  }
}

TYPED_TEST(ElementwiseTest, GeluFarOut) {
  Operand x(this->kType, {6}, {-1e4, -90, -20, 20, 90, 1e4});
  Operand ones(this->kType, {6}, Numbers(6, 1.0));
  for (const Activation form : {Activation::gelu_tanh, Activation::gelu_erf}) {
    expect_close(this->run(Gelu(form), {x})[0].numbers(), {0, 0, 0, 20, 90, 1e4}, 1e-30);
    expect_close(this->run(GeluGrad(form), {x, ones})[0].numbers(), {0, 0, 0, 1, 1, 1}, 1e-30);
  }
}

}  // namespace
}  // namespace annulus::testing
