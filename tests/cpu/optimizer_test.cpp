#include "runtime/ops/optimizer.h"

#include "tests/cpu/support.h"

namespace annulus::testing {
namespace {

template <class T>
class OptimizerTest : public FloatKernelTest<T> {
 protected:
  /// Of the tensors of one op: none, one and odd ones, chunks of a kernel's and one more; more than a launch takes.
  std::vector<std::int64_t> list_of_sizes() {
    std::vector<std::int64_t> sizes{0, 1, this->size(1000), 4096, 4097, this->integer(70000, 80000), 0};
    for (int i = 0; i < 200; ++i) sizes.push_back(this->integer(1, 9));
    return sizes;
  }
};
TYPED_TEST_SUITE(OptimizerTest, FloatTypes);

TYPED_TEST(OptimizerTest, SumOfSquares) {
  for (std::int64_t count : {std::int64_t{1}, this->size(1000), std::int64_t{200003}}) {
    Operand x = this->random(this->kType, {count});
    const Numbers numbers = x.numbers();
    expect_close(this->run(SumSquares(), {x})[0].numbers(), {dot(numbers, numbers)}, 1e-12);  // both sum naively
  }
}

TYPED_TEST(OptimizerTest, SumOfSquaresOfAList) {
  std::vector<Operand> tensors;
  double expected = 0;
  for (std::int64_t count : this->list_of_sizes()) {
    tensors.push_back(this->random(this->kType, {count}));
    const Numbers numbers = tensors.back().numbers();
    expected += dot(numbers, numbers);
    if (tensors.size() == 1) expect_close(this->run(SumSquares(), tensors)[0].numbers(), {0}, 0);
  }
  expect_close(this->run(SumSquares(), tensors)[0].numbers(), {expected}, 1e-12);
}

/// Bit by bit what one op a tensor makes, with and without working copies.
TYPED_TEST(OptimizerTest, AdamWOfAListIsThatOfItsTensors) {
  const std::vector<std::int64_t> sizes = this->list_of_sizes();
  const std::size_t n = sizes.size();
  const Operand clip(DType::f64, {4}, {0.3, 0, 0, 0}), hyper(DType::f64, {4}, {1e-2, 0.4, 0.3, 0});
  for (const bool copies : {false, true}) {
    if (copies && this->kType != DType::f32) continue;
    const auto copy = copies ? AdamW::WorkingCopy::rounded : AdamW::WorkingCopy::none;
    std::vector<std::vector<Operand>> lists(copies ? 5 : 4);
    for (std::int64_t count : sizes) {
      for (std::size_t list = 0; list < 4; ++list) lists[list].push_back(this->random(this->kType, {count}));
      Numbers squares = lists[3].back().numbers();
      for (double& x : squares) x *= x;
      lists[3].back() = Operand(this->kType, {count}, squares);
      if (copies) lists[4].push_back(this->random(DType::bf16, {count}));
    }
    std::vector<Operand> inputs;
    for (std::size_t list = 0; list < lists.size(); ++list) {
      if (list == 4) inputs.insert(inputs.end(), {clip, hyper});
      inputs.insert(inputs.end(), lists[list].begin(), lists[list].end());
    }
    if (!copies) inputs.insert(inputs.end(), {clip, hyper});
    const std::vector<Operand> together = this->run(AdamW(AdamW::Options{}, copy, n), inputs);
    ASSERT_EQ(together.size(), (lists.size() - 1) * n);
    for (std::size_t i = 0; i < n; ++i) {
      std::vector<Operand> single{lists[0][i], lists[1][i], lists[2][i], lists[3][i], clip, hyper};
      if (copies) single.push_back(lists[4][i]);
      const std::vector<Operand> alone = this->run(AdamW(AdamW::Options{}, copy), single);
      for (std::size_t output = 0; output < alone.size(); ++output)
        ASSERT_EQ(together[output * n + i].bytes(), alone[output].bytes()) << "output " << output << " of tensor " << i;
    }
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
