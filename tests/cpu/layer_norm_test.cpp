#include "runtime/ops/layer_norm.h"

#include "tests/cpu/support.h"

namespace annulus::testing {
namespace {

template <class T>
class LayerNormTest : public FloatKernelTest<T> {};
TYPED_TEST_SUITE(LayerNormTest, FloatTypes);

struct Reference {
  Numbers y, stats;
};

Reference layer_norm(const Numbers& x, const Numbers& gamma, const Numbers& beta, double epsilon) {
  const std::size_t width = gamma.size(), rows = x.size() / width;
  Reference result{Numbers(x.size()), Numbers(2 * rows)};
  for (std::size_t row = 0; row < rows; ++row) {
    double mean = 0, variance = 0;
    for (std::size_t j = 0; j < width; ++j) mean += x[row * width + j] / static_cast<double>(width);
    for (std::size_t j = 0; j < width; ++j)
      variance += std::pow(x[row * width + j] - mean, 2) / static_cast<double>(width);
    const double inverse = 1 / std::sqrt(variance + epsilon);
    result.stats[2 * row] = mean;
    result.stats[2 * row + 1] = inverse;
    for (std::size_t j = 0; j < width; ++j) {
      result.y[row * width + j] = (x[row * width + j] - mean) * inverse * gamma[j] + beta[j];
    }
  }
  return result;
}

TYPED_TEST(LayerNormTest, ForwardAndGradient) {
  constexpr double kEpsilon = 1e-2;  // large enough that rows of one column say something
  for (int round = 0; round < 12; ++round) {
    const std::int64_t rows = this->size(90), width = this->size(70);
    Operand x = this->random(this->kType, {rows, width}), gamma = this->random(this->kType, {width});
    Operand beta = this->random(this->kType, {width}), dy = this->random(this->kType, {rows, width});
    const Numbers at = x.numbers(), scale = gamma.numbers(), shift = beta.numbers(), weight = dy.numbers();
    const Reference expected = layer_norm(at, scale, shift, kEpsilon);
    auto outputs = this->run(LayerNorm(kEpsilon), {x, gamma, beta});
    expect_close(outputs[0].numbers(), expected.y, this->tolerance(60), "y", 1);
    expect_close(outputs[1].numbers(), expected.stats, this->tolerance(), "statistics");

    const auto loss = [&](const Numbers& a, const Numbers& b, const Numbers& c) {
      return dot(weight, layer_norm(a, b, c, kEpsilon).y);
    };
    auto gradients = this->run(LayerNormGrad(), {x, gamma, outputs[1], dy});
    const double tolerance = std::max(this->tolerance(200), 1e-7);
    if (rows * width < 500) {
      expect_close(gradients[0].numbers(),
                   finite_difference([&](const Numbers& a) { return loss(a, scale, shift); }, at), tolerance, "dx", 1);
    }
    expect_close(gradients[1].numbers(), finite_difference([&](const Numbers& b) { return loss(at, b, shift); }, scale),
                 tolerance, "dgamma", usual_sum(rows));
    expect_close(gradients[2].numbers(), finite_difference([&](const Numbers& c) { return loss(at, scale, c); }, shift),
                 tolerance, "dbeta", usual_sum(rows));
  }
}

}  // namespace
}  // namespace annulus::testing
