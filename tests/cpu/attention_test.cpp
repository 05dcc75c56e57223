#include "runtime/ops/attention.h"

#include <limits>
#include <optional>

#include "runtime/core/random.h"
#include "runtime/cpu/parallel.h"
#include "tests/cpu/support.h"

namespace annulus::testing {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Sizes and attributes of one case; `n` positions a sequence, on which the blocks act.
struct Case {
  std::int64_t sequences, heads, group, head_dim, n;
  double rate = 0;
  std::int64_t head_offset = 0, step = 0;

  std::int64_t kv_heads() const { return heads / group; }
  std::int64_t rows() const { return sequences * n; }
  DropoutMask mask() const { return {rate, 5, 77}; }
  Attention composite() const { return Attention({head_dim, sequences}, {}, mask(), head_offset); }
};

using Blocks = std::vector<AttentionBlock>;

/// Brute force, from the definition: attention of what every block lets see, all steps at once.
class Brute {
 public:
  Brute(const Case& sizes, std::vector<Blocks> steps, std::vector<Numbers> kv, Numbers sequence_ids)
      : sizes_(sizes), steps_(std::move(steps)), kv_(std::move(kv)), ids_(std::move(sequence_ids)) {}

  struct Result {
    Numbers out, lse;
    std::int64_t pairs = 0;
  };

  Result forward(const Numbers& q, const std::vector<Numbers>& kv) const {
    const std::int64_t h = sizes_.head_dim;
    Result result{Numbers(q.size()), Numbers(static_cast<std::size_t>(sizes_.rows() * sizes_.heads)), 0};
    for (std::int64_t row = 0; row < sizes_.rows(); ++row) {
      for (std::int64_t head = 0; head < sizes_.heads; ++head) {
        struct Seen {
          double score, factor;
          const double* value;
        };
        std::vector<Seen> seen;
        for (std::size_t step = 0; step < steps_.size(); ++step) {
          for (const AttentionBlock& block : steps_[step]) {
            const std::int64_t i = row % sizes_.n - block.query_begin;
            if (i < 0 || i >= block.query_end - block.query_begin) continue;
            for (std::int64_t j = 0; j < block.key_end - block.key_begin; ++j) {
              if (block.causal && j > i + block.diagonal) continue;
              const double* key = at(kv[step], row / sizes_.n * sizes_.n + block.key_begin + j, 0, head);
              double score = 0;
              for (std::int64_t d = 0; d < h; ++d) {
                score += q[static_cast<std::size_t>((row * sizes_.heads + head) * h + d)] * key[d];
              }
              seen.push_back({score / std::sqrt(static_cast<double>(h)), factor(row / sizes_.n, head, block, i, j),
                              key + sizes_.kv_heads() * h});
            }
          }
        }
        double largest = -kInfinity, sum = 0;
        for (const Seen& s : seen) largest = std::max(largest, s.score);
        for (const Seen& s : seen) sum += std::exp(s.score - largest);
        for (const Seen& s : seen) {
          for (std::int64_t d = 0; d < h; ++d) {
            result.out[static_cast<std::size_t>((row * sizes_.heads + head) * h + d)] +=
                std::exp(s.score - largest) / sum * s.factor * s.value[d];
          }
        }
        result.lse[static_cast<std::size_t>(row * sizes_.heads + head)] =
            seen.empty() ? -kInfinity : largest + std::log(sum);
        result.pairs += static_cast<std::int64_t>(seen.size());
      }
    }
    return result;
  }
  Result forward(const Numbers& q) const { return forward(q, kv_); }

 private:
  const double* at(const Numbers& kv, std::int64_t row, std::int64_t part, std::int64_t head) const {
    return kv.data() + ((row * 2 + part) * sizes_.kv_heads() + head / sizes_.group) * sizes_.head_dim;
  }
  double factor(std::int64_t sequence, std::int64_t head, const AttentionBlock& block, std::int64_t i,
                std::int64_t j) const {
    if (sizes_.rate == 0) return 1;
    const auto word = [](std::int64_t x) { return static_cast<std::uint32_t>(x); };
    const std::int64_t query = block.query_position + i * block.query_stride,
                       key = block.key_position + j * block.key_stride;
    const auto words =
        philox({word(static_cast<std::int64_t>(ids_[static_cast<std::size_t>(sequence)])),
                word(sizes_.head_offset + head), word(query), word(key / 4)},
               stream_key(sizes_.mask().seed, sizes_.mask().stream, static_cast<std::uint64_t>(sizes_.step)));
    return words[static_cast<std::size_t>(key % 4)] >= sizes_.rate * 0x1p32 ? 1 / (1 - sizes_.rate) : 0;
  }

  Case sizes_;
  std::vector<Blocks> steps_;
  std::vector<Numbers> kv_;
  Numbers ids_;
};

template <class T>
class AttentionTest : public FloatKernelTest<T> {
 protected:
  /// Operands of one case and what the kernels make of them.
  struct Outcome {
    Numbers q, dout, ids;
    std::vector<Numbers> kv;
    std::vector<Numbers> dkv;  ///< by step
    std::vector<Operand> forward, backward;
    std::int64_t forward_pairs = 0, backward_pairs = 0;
  };

  Outcome attend(const Case& sizes, const std::vector<Blocks>& steps) {
    const DType type = this->kType;
    const Attention composite = sizes.composite();
    const std::int64_t width = sizes.heads * sizes.head_dim;
    Operand q = this->random(type, {sizes.rows(), width}), dout = this->random(type, {sizes.rows(), width});
    std::vector<Operand> kv;
    Outcome outcome{q.numbers(), dout.numbers(), {}, {}, {}, {}, {}};
    for (std::size_t step = 0; step < steps.size(); ++step) {
      kv.push_back(this->random(type, {sizes.rows(), 2, sizes.kv_heads() * sizes.head_dim}));
      outcome.kv.push_back(kv.back().numbers());
    }
    Numbers ids;
    for (std::int64_t s = 0; s < sizes.sequences; ++s) {
      outcome.ids.push_back(static_cast<double>(this->integer(0, 1000)));
      for (std::int64_t i = 0; i < sizes.n; ++i) ids.insert(ids.end(), {outcome.ids.back(), static_cast<double>(i)});
    }
    const Operand row_ids(DType::i32, {sizes.rows(), 2}, ids),
        step_number(DType::i32, {1}, {static_cast<double>(sizes.step)});
    for (std::size_t step = 0; step < steps.size(); ++step) {
      std::vector<Operand> inputs{q, kv[step], row_ids, step_number};
      if (step > 0) inputs.insert(inputs.end(), {outcome.forward[0], outcome.forward[1]});
      outcome.forward = this->run(AttentionStep(composite, steps[step], step == 0), inputs);
      outcome.forward_pairs += this->counters_.attended_pairs;
    }
    for (std::size_t step = 0; step < steps.size(); ++step) {
      std::vector<Operand> inputs{q, kv[step], row_ids, step_number, outcome.forward[0], outcome.forward[1], dout};
      if (step > 0) inputs.push_back(outcome.backward[0]);
      const AttentionStepGrad op(composite, steps[step], step == 0);
      outcome.backward = this->run(op, inputs);
      outcome.dkv.push_back(outcome.backward[1].numbers());
      outcome.backward_pairs += this->counters_.attended_pairs;
      EXPECT_EQ(this->run(op, inputs)[1].bytes(), outcome.backward[1].bytes()) << "not reproducible";
    }
    return outcome;
  }

  void check(const Case& sizes, const std::vector<Blocks>& steps, const std::string& what) {
    Outcome outcome = attend(sizes, steps);
    const Brute brute(sizes, steps, outcome.kv, outcome.ids);
    const auto expected = brute.forward(outcome.q);
    expect_close(outcome.forward[0].numbers(), expected.out, this->tolerance(40), what + ": out", 1);
    const Numbers lse = outcome.forward[1].numbers();
    for (std::size_t i = 0; i < lse.size(); ++i) {
      if (expected.lse[i] == -kInfinity) {
        EXPECT_EQ(lse[i], -kInfinity) << what;
      } else {
        EXPECT_NEAR(lse[i], expected.lse[i], this->tolerance(40)) << what;
      }
    }
    EXPECT_EQ(outcome.forward_pairs, expected.pairs) << what;
    EXPECT_EQ(outcome.backward_pairs, expected.pairs) << what;
    check_gradients(outcome, brute, what);
  }

  /// Along random directions: a full finite difference of every element costs too much.
  void check_gradients(Outcome& outcome, const Brute& brute, const std::string& what) {
    constexpr double kStep = 1e-5;
    for (int round = 0; round < 3; ++round) {
      const auto slope = [&](Numbers& numbers, const Numbers& gradient, const std::string& name) {
        const Numbers kept = numbers;
        Numbers direction(kept.size());
        for (double& x : direction) x = this->normal();
        double values[2];
        for (int side = 0; side < 2; ++side) {
          for (std::size_t i = 0; i < kept.size(); ++i)
            numbers[i] = kept[i] + (side == 0 ? -kStep : kStep) * direction[i];
          values[side] = dot(brute.forward(outcome.q, outcome.kv).out, outcome.dout);
        }
        numbers = kept;
        const double size = std::sqrt(dot(gradient, gradient)) + 1;
        EXPECT_NEAR(dot(direction, gradient), (values[1] - values[0]) / (2 * kStep),
                    size * std::max(this->tolerance(60), 1e-7))
            << what << ": " << name;
      };
      slope(outcome.q, outcome.backward[0].numbers(), "dq");
      for (std::size_t step = 0; step < outcome.kv.size(); ++step) slope(outcome.kv[step], outcome.dkv[step], "dkv");
    }
  }

  static AttentionBlock block(std::int64_t qb, std::int64_t qe, std::int64_t kb, std::int64_t ke) {
    const auto narrow = [](std::int64_t x) { return static_cast<std::int32_t>(x); };
    return {.query_begin = narrow(qb),
            .query_end = narrow(qe),
            .key_begin = narrow(kb),
            .key_end = narrow(ke),
            .query_position = narrow(qb),
            .key_position = narrow(kb)};
  }
  static AttentionBlock causal(AttentionBlock of, std::int32_t diagonal) {
    of.causal = true;
    of.diagonal = diagonal;
    return of;
  }
  Case random_case(std::int64_t most_positions) {
    const std::int64_t group = this->integer(1, 3), kv_heads = this->integer(1, 2);
    return {.sequences = this->integer(1, 2),
            .heads = group * kv_heads,
            .group = group,
            .head_dim = this->size(40),
            .n = this->size(most_positions)};
  }
};
TYPED_TEST_SUITE(AttentionTest, FloatTypes);

TYPED_TEST(AttentionTest, Full) {
  for (int round = 0; round < 4; ++round) {
    const Case sizes = this->random_case(90);
    this->check(sizes, {{this->block(0, sizes.n, 0, sizes.n)}}, "full");
  }
}

TYPED_TEST(AttentionTest, Causal) {
  for (int round = 0; round < 6; ++round) {
    const Case sizes = this->random_case(200);
    const AttentionBlock whole = this->block(0, sizes.n, 0, sizes.n);
    this->check(sizes, {{this->causal(whole, 0)}}, "causal");
    this->check(sizes, {{this->causal(whole, -1)}}, "strictly causal, row 0 sees nothing");
    this->check(sizes, {{this->causal(whole, static_cast<std::int32_t>(this->integer(-80, 80)))}}, "shifted");
  }
}

TYPED_TEST(AttentionTest, HeadsOf64AndOf128) {
  for (const std::int64_t head_dim : {64, 128}) {
    const Case sizes{.sequences = 1, .heads = 2, .group = 2, .head_dim = head_dim, .n = this->integer(100, 320)};
    this->check(sizes, {{this->causal(this->block(0, sizes.n, 0, sizes.n), 0)}}, "causal");
  }
}

TYPED_TEST(AttentionTest, SeveralBlocksAndSteps) {
  for (int round = 0; round < 6; ++round) {
    Case sizes = this->random_case(150);
    if (round == 0) sizes = {.sequences = 1, .heads = 2, .group = 2, .head_dim = 8, .n = this->integer(300, 600)};
    const std::int64_t n = sizes.n, cut = this->integer(0, n), other = this->integer(0, n);
    const Blocks zigzag{this->causal(this->block(0, cut, 0, cut), 0), this->block(cut, n, 0, cut),
                        this->causal(this->block(cut, n, cut, n), 0)};
    this->check(sizes, {zigzag}, "blocks that make up the causal square");
    this->check(sizes, {zigzag, {this->block(0, n, 0, other)}, {this->causal(this->block(other, n, 0, n), -1)}},
                "three steps");
    this->check(sizes, {{}, {this->block(cut, n, 0, n)}}, "a step without blocks");
  }
}

TYPED_TEST(AttentionTest, Dropout) {
  for (int round = 0; round < 6; ++round) {
    Case sizes = this->random_case(130);
    sizes.rate = 0.3;
    sizes.head_offset = this->integer(0, 50);
    sizes.step = this->integer(0, 100);
    AttentionBlock whole = this->causal(this->block(0, sizes.n, 0, sizes.n), 0);
    whole.query_position = static_cast<std::int32_t>(this->integer(0, 1000));
    whole.key_position = static_cast<std::int32_t>(this->integer(0, 1000));
    this->check(sizes, {{whole}}, "contiguous");
    whole.query_stride = whole.key_stride = static_cast<std::int32_t>(this->integer(2, 9));
    whole.diagonal = -1;
    this->check(sizes, {{whole}}, "striped");
  }
}

/// Two steps that share the keys between them find what one step finds.
TYPED_TEST(AttentionTest, StepsMergeToOne) {
  const Case sizes{.sequences = 2, .heads = 3, .group = 3, .head_dim = 16, .n = 150};
  const std::int64_t rows = sizes.rows(), cut = this->integer(1, sizes.n - 1);
  Operand q = this->random(this->kType, {rows, 48}), kv = this->random(this->kType, {rows, 2, 16});
  const Operand row_ids(DType::i32, {rows, 2}), step(DType::i32, {1});
  const AttentionStep whole(sizes.composite(), {this->block(0, sizes.n, 0, sizes.n)}, true);
  auto expected = this->run(whole, {q, kv, row_ids, step});
  auto merged = this->run(AttentionStep(sizes.composite(), {this->block(0, sizes.n, cut, sizes.n)}, true),
                          {q, kv, row_ids, step});
  merged = this->run(AttentionStep(sizes.composite(), {this->block(0, sizes.n, 0, cut)}, false),
                     {q, kv, row_ids, step, merged[0], merged[1]});
  expect_close(merged[0].numbers(), expected[0].numbers(), this->tolerance(), "out");
  expect_close(merged[1].numbers(), expected[1].numbers(), this->tolerance(), "lse");
}

/// Several key tiles add to each dq: in their order, whichever threads they are on.
TYPED_TEST(AttentionTest, BitsDoNotDependOnTheNumberOfThreads) {
  const Case sizes{.sequences = 1, .heads = 2, .group = 2, .head_dim = 16, .n = this->integer(520, 800)};
  const Shape width{sizes.n, 32};
  const Operand q = this->random(this->kType, width), kv = this->random(this->kType, {sizes.n, 2, 16});
  const Operand dout = this->random(this->kType, width), row_ids(DType::i32, {sizes.n, 2}), step(DType::i32, {1});
  const Blocks blocks{this->causal(this->block(0, sizes.n, 0, sizes.n), 0)};
  const int usual = thread_count();
  std::vector<std::byte> expected;
  for (const int threads : {1, 2, 3, 5}) {
    const CpuDevice device(threads);  // says how many threads kernels use that are called from here
    std::vector<Operand> results = this->run(AttentionStep(sizes.composite(), blocks, true), {q, kv, row_ids, step});
    for (Operand& gradient : this->run(AttentionStepGrad(sizes.composite(), blocks, true),
                                       {q, kv, row_ids, step, results[0], results[1], dout}))
      results.push_back(std::move(gradient));
    std::vector<std::byte> bytes;
    for (const Operand& result : results) bytes.insert(bytes.end(), result.bytes().begin(), result.bytes().end());
    if (expected.empty()) expected = bytes;
    EXPECT_TRUE(bytes == expected) << threads << " threads";
  }
  const CpuDevice restored(usual);
}

/// Scores far beyond what exp can take must neither overflow nor turn into NaN.
TYPED_TEST(AttentionTest, LargeScores) {
  const Case sizes{.sequences = 1, .heads = 1, .group = 1, .head_dim = 8, .n = 70};
  Operand q = this->random(this->kType, {70, 8}, 60), kv = this->random(this->kType, {70, 2, 8}, 60);
  const Operand row_ids(DType::i32, {70, 2}), step(DType::i32, {1});
  const Blocks blocks{this->causal(this->block(0, 70, 0, 70), 0)};
  const auto expected = Brute(sizes, {blocks}, {kv.numbers()}, {0}).forward(q.numbers());
  auto outputs = this->run(AttentionStep(sizes.composite(), blocks, true), {q, kv, row_ids, step});
  expect_close(outputs[0].numbers(), expected.out, this->kType == DType::f32 ? 2e-3 : 1e-11);
  expect_close(outputs[1].numbers(), expected.lse, this->tolerance());
}

}  // namespace
}  // namespace annulus::testing
