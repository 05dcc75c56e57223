#include "runtime/ops/optimizer.h"

#include "tests/cpu/support.h"

namespace annulus::testing {
namespace {

template <class T>
class OptimizerTest : public FloatKernelTest<T> {};
TYPED_TEST_SUITE(OptimizerTest, FloatTypes);

TYPED_TEST(OptimizerTest, SumOfSquares) {
  for (std::int64_t count : {std::int64_t{1}, this->size(1000), std::int64_t{200003}}) {
    Operand x = this->random(this->kType, {count});
    const Numbers numbers = x.numbers();
    expect_close(this->run(SumSquares(), {x})[0].numbers(), {dot(numbers, numbers)}, 1e-12);  // both sum naively
  }
}

/// Five steps against the formulas of torch.optim.AdamW, in double.
TYPED_TEST(OptimizerTest, AdamW) {
  const AdamW op({.beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .weight_decay = 0.1});
  const std::int64_t count = this->size(100);
  Operand weight = this->random(this->kType, {count}), m(this->kType, {count}), v(this->kType, {count});
  Numbers w = weight.numbers(), first(w.size()), second(w.size());
  for (int step = 1; step <= 5; ++step) {
    Operand grad = this->random(this->kType, {count});
    const double rate = 1e-2 / step, factor = 0.25, done1 = 1 - std::pow(0.9, step), done2 = 1 - std::pow(0.999, step);
    const Operand clip(DType::f64, {4}, {factor, 0, 0, 0}), hyper(DType::f64, {4}, {rate, done1, done2, 0});
    const Numbers g = grad.numbers();
    for (std::size_t i = 0; i < w.size(); ++i) {
      const double slope = g[i] * factor;
      w[i] *= 1 - rate * 0.1;
      first[i] = 0.9 * first[i] + 0.1 * slope;
      second[i] = 0.999 * second[i] + 0.001 * slope * slope;
      w[i] -= rate * (first[i] / done1) / (std::sqrt(second[i] / done2) + 1e-8);
    }
    std::vector<Operand> outputs = this->run(op, {weight, grad, m, v, clip, hyper});
    weight = outputs[0];
    m = outputs[1];
    v = outputs[2];
  }
  expect_close(weight.numbers(), w, this->tolerance(), "weight");
  expect_close(m.numbers(), first, this->tolerance(), "first moment");
  expect_close(v.numbers(), second, this->tolerance(), "second moment");
}

TYPED_TEST(OptimizerTest, Clip) {
  const double squares = std::pow(this->normal(10), 2) + 1, loss = this->normal(), weights = 7.5;
  const double norm = std::sqrt(squares) / weights;
  for (double limit : {0.0, norm / 3, norm * 3}) {
    const double clipped = limit > 0 && limit < norm ? limit / (norm + 1e-6) : 1;
    expect_close(
        this->run(Clip(limit), {Operand(DType::f64, {1}, {squares}), Operand(DType::f64, {2}, {loss, weights})})[0]
            .numbers(),
        {clipped / weights, norm, loss / weights, weights}, 1e-14);
  }
}

}  // namespace
}  // namespace annulus::testing
