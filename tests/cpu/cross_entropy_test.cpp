#include "runtime/ops/cross_entropy.h"

#include <algorithm>
#include <limits>

#include "tests/cpu/support.h"

namespace annulus::testing {
namespace {

template <class T>
class CrossEntropyTest : public FloatKernelTest<T> {};
TYPED_TEST_SUITE(CrossEntropyTest, FloatTypes);

/// The unnormalised loss of whole rows of `vocabulary` logits.
double loss_of(const Numbers& logits, const Operand& targets, const Numbers& weights, std::size_t vocabulary) {
  Operand ids = targets;
  double loss = 0;
  for (std::size_t row = 0; row < weights.size(); ++row) {
    const double* of_row = logits.data() + row * vocabulary;
    const double largest = *std::max_element(of_row, of_row + vocabulary);
    double sum = 0;
    for (std::size_t j = 0; j < vocabulary; ++j) sum += std::exp(of_row[j] - largest);
    loss += weights[row] * (std::log(sum) + largest - of_row[ids.tensor().as<std::int32_t>()[row]]);
  }
  return loss;
}

/// Columns [first, first + count) of rows of `width`, with `padding` beyond.
Numbers columns_of(const Numbers& rows, std::int64_t width, std::int64_t first, std::int64_t count, double padding) {
  Numbers part;
  for (std::int64_t row = 0; row < static_cast<std::int64_t>(rows.size()) / width; ++row) {
    for (std::int64_t j = first; j < first + count; ++j) {
      part.push_back(j < width ? rows[static_cast<std::size_t>(row * width + j)] : padding);
    }
  }
  return part;
}

Numbers merged(Numbers a, const Numbers& b, const std::function<double(double, double)>& merge) {
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = merge(a[i], b[i]);
  return a;
}

/// A vocabulary in shards, padded by large numbers that nobody may see, as the model runs it: with reductions between.
TYPED_TEST(CrossEntropyTest, ShardedAndPadded) {
  for (int round = 0; round < 20; ++round) {
    const std::int64_t rows = this->size(12), vocabulary = this->size(60), shards = this->integer(1, 4);
    const std::int64_t width = (vocabulary + shards - 1) / shards + this->integer(0, 5);
    Operand logits = this->random(this->kType, {rows, vocabulary}, 3), weights = this->random(this->kType, {rows});
    const Operand targets = this->random_ids({rows}, 0, vocabulary - 1);
    const Numbers whole = logits.numbers(), weight = weights.numbers();
    const auto count = static_cast<std::size_t>(rows);
    Numbers largest(count, -std::numeric_limits<double>::infinity()), sum(count), target(count), gradient(whole.size());
    std::vector<Operand> parts;
    for (std::int64_t i = 0; i < shards; ++i) {
      parts.emplace_back(this->kType, Shape{rows, width}, columns_of(whole, vocabulary, i * width, width, 1e4));
    }
    const auto shard = [&](std::int64_t i) { return VocabularyShard{i * width, vocabulary}; };
    const auto operand = [&](const Numbers& numbers) { return Operand(this->kType, {rows}, numbers); };
    const auto at = [&](std::int64_t i) { return parts[static_cast<std::size_t>(i)]; };
    for (std::int64_t i = 0; i < shards; ++i) {
      largest = merged(largest, this->run(RowMax(shard(i)), {at(i)})[0].numbers(),
                       [](double a, double b) { return std::max(a, b); });
    }
    for (std::int64_t i = 0; i < shards; ++i) {
      sum = merged(sum, this->run(RowSumExp(shard(i)), {at(i), operand(largest)})[0].numbers(), std::plus<>());
      target = merged(target, this->run(RowTarget(shard(i)), {at(i), targets})[0].numbers(), std::plus<>());
    }
    const auto loss = [&](const Numbers& x) {
      return loss_of(x, targets, weight, static_cast<std::size_t>(vocabulary));
    };
    const Numbers expected = finite_difference(loss, whole);
    for (std::int64_t i = 0; i < shards; ++i) {
      const auto sums =
          this->run(Nll(shard(i)), {at(i), operand(sum), operand(largest), operand(target), targets, weights})[0]
              .numbers();
      double weight_sum = 0;
      for (double w : weight) weight_sum += w;
      EXPECT_NEAR(sums[0], loss(whole), this->tolerance(40) * static_cast<double>(rows) * 10);
      EXPECT_NEAR(sums[1], weight_sum, 1e-12);
      const auto part =
          this->run(NllGrad(shard(i)), {at(i), operand(sum), operand(largest), targets, weights})[0].numbers();
      Numbers of_shard = columns_of(expected, vocabulary, i * width, width, 0);
      for (std::size_t j = 0; j < part.size(); ++j)
        EXPECT_NEAR(part[j], of_shard[j], std::max(this->tolerance(40), 1e-8));
      for (std::int64_t j = 0; j < rows * width; ++j) {
        if (i * width + j % width >= vocabulary) {
          EXPECT_EQ(part[static_cast<std::size_t>(j)], 0);
        }
      }
    }
  }
}

/// Rows of more columns than are summed at once, some of them impossible, and padding behind.
TYPED_TEST(CrossEntropyTest, LongRows) {
  const std::int64_t rows = 2, vocabulary = this->integer(9000, 13000), width = vocabulary + this->integer(0, 40);
  const double infinity = std::numeric_limits<double>::infinity();
  Numbers whole = this->random(this->kType, {rows, vocabulary}, 3).numbers();
  for (int impossible = 0; impossible < 50; ++impossible)
    whole[static_cast<std::size_t>(this->integer(0, rows * vocabulary - 1))] = -infinity;
  std::fill_n(whole.begin(), 5000, -infinity);  // more than are summed at once
  const Operand logits(this->kType, {rows, width}, columns_of(whole, vocabulary, 0, width, 1e4));
  const VocabularyShard shard{0, vocabulary};
  const Operand largest = this->run(RowMax(shard), {logits})[0];
  const Operand sums = this->run(RowSumExp(shard), {logits, largest})[0];
  const Operand targets = this->random_ids({rows}, 0, vocabulary - 1), weights = this->random(this->kType, {rows});
  const Numbers gradient = this->run(NllGrad(shard), {logits, sums, largest, targets, weights})[0].numbers();
  Numbers expected_largest, expected_sums, expected_gradient;
  for (std::int64_t row = 0; row < rows; ++row) {
    const auto begin = whole.begin() + row * vocabulary, end = begin + vocabulary;
    expected_largest.push_back(*std::max_element(begin, end));
    expected_sums.push_back(0);
    for (auto logit = begin; logit != end; ++logit) expected_sums.back() += std::exp(*logit - expected_largest.back());
    const double weight = Operand(weights).numbers()[static_cast<std::size_t>(row)];
    const std::int64_t target = Operand(targets).tensor().template as<std::int32_t>()[row];
    for (std::int64_t j = 0; j < width; ++j) {
      const double probability =
          j < vocabulary ? std::exp(begin[j] - expected_largest.back()) / expected_sums.back() : 0;
      expected_gradient.push_back(weight * (probability - (j == target ? 1 : 0)));
    }
  }
  EXPECT_EQ(Operand(largest).numbers(), expected_largest);
  expect_close(Operand(sums).numbers(), expected_sums, this->tolerance(), "sums");
  const std::vector<Operand> at_once = this->run(RowSoftmax(shard), {logits, targets});
  EXPECT_EQ(Operand(at_once[0]).numbers(), expected_largest);
  expect_close(Operand(at_once[1]).numbers(), expected_sums, this->tolerance(), "sums at once");
  expect_close(gradient, expected_gradient, this->tolerance(), "gradient");
}

/// A logit that is no number is not hidden by the others, in whichever lane it is.
TYPED_TEST(CrossEntropyTest, NotANumberIsSeen) {
  for (std::int64_t at = 0; at < 40; ++at) {
    Numbers logits = this->random(this->kType, {1, 40}).numbers();
    logits[static_cast<std::size_t>(at)] = std::numeric_limits<double>::quiet_NaN();
    const Operand row(this->kType, {1, 40}, logits);
    const Operand largest = this->run(RowMax(VocabularyShard{0, 40}), {row})[0];
    EXPECT_TRUE(std::isnan(this->run(RowSumExp(VocabularyShard{0, 40}), {row, largest})[0].numbers()[0])) << at;
  }
}

}  // namespace
}  // namespace annulus::testing
