// Every sharded step equals one rank's: loss, norm and every gradient, in float64. Ranks are threads.
#include <gtest/gtest.h>

#include "tests/model/composition.h"

namespace annulus::testing {
namespace {

constexpr int kMostRanks = 8;

/// What is tried on top of each mesh: each composition takes the next row, so that all meet all.
struct Extras {
  double dropout;
  int micro_batches;
  std::int64_t kv_heads, vocabulary;
};
constexpr Extras kExtras[] = {
    {0, 1, 12, 37}, {0.2, 1, 12, 41}, {0, 3, 2, 40}, {0.3, 3, 4, 37}, {0, 1, 1, 29}, {0.1, 3, 12, 48}, {0.2, 1, 6, 37},
};

bool kv_heads_fit(std::int64_t kv_heads, int tp) { return kv_heads < tp ? tp % kv_heads == 0 : kv_heads % tp == 0; }

/// Every mesh of up to 8 ranks with tp and cp in 1..4, dp in 1..2; each layout where there is a ring, each way of
/// sequence parallelism where there is a tp.
std::vector<Composition> sweep(std::uint64_t seed) {
  std::vector<Composition> all;
  std::size_t next = seed % std::size(kExtras);
  for (int dp = 1; dp <= 2; ++dp)
    for (int cp = 1; cp <= 4; ++cp)
      for (int tp = 1; tp <= 4; ++tp)
        for (RingLayout layout : {RingLayout::contiguous, RingLayout::striped, RingLayout::zigzag})
          for (SequenceParallel sp : {SequenceParallel::off, SequenceParallel::on}) {
            if (dp * cp * tp > kMostRanks || (cp == 1 && layout != RingLayout::zigzag)) continue;
            if (tp == 1 && sp == SequenceParallel::on) continue;
            do next = (next + 1) % std::size(kExtras);
            while (!kv_heads_fit(kExtras[next].kv_heads, tp));
            const Extras& extras = kExtras[next];
            Composition composition{.mesh = {dp, cp, tp}, .options = small_step(seed + all.size())};
            StepOptions& options = composition.options;
            options.layout = layout;
            options.sequence_parallel = sp;
            options.optimizer_sharding = next % 2 == 0 ? OptimizerSharding::none : OptimizerSharding::zero1;
            options.micro_batches = extras.micro_batches;
            options.model.kv_heads = extras.kv_heads;
            options.model.vocabulary = extras.vocabulary;
            options.model.dropout = {extras.dropout, extras.dropout, extras.dropout};
            all.push_back(composition);
          }
  return all;
}

void expect_equal(const Composition& composition) {
  SCOPED_TRACE(describe(composition));
  const Deviation found = deviation_from_one_rank(composition);
  EXPECT_LT(found.loss, 1e-12);
  EXPECT_LT(found.norm, 1e-11);
  EXPECT_LT(found.gradient, 1e-10) << found.parameter;
}

TEST(Equivalence, EveryMeshEqualsOneRank) {
  const std::vector<Composition> all = sweep(fresh_seed());
  for (const Composition& composition : all) expect_equal(composition);
  std::cout << all.size() << " compositions\n";
  EXPECT_GE(all.size(), 60u);
}

// One rank against itself proves nothing of micro-batches; against the whole batch at once it does.
TEST(Equivalence, MicroBatchesEqualOneBatch) {
  StepOptions parts = small_step(fresh_seed());
  StepOptions whole = parts;
  parts.micro_batches = 3;
  whole.micro_sequences = 3 * parts.micro_sequences;
  // One replica's micro-batches hold the same sequences in the same order as one batch of all.
  std::map<std::string, std::vector<double>> gradients;
  double loss = 0;
  on_ranks({.mesh = {}, .options = parts}, Tail::gradients, [&](StepRunner& runner, int) {
    runner.run(1, {}, random_sequences(parts.seed, parts.model.vocabulary));
    for (const Parameter& parameter : runner.step().parameters) gradients[parameter.name] = runner.gradient(parameter);
    loss = runner.summary().loss;
  });
  on_ranks({.mesh = {}, .options = whole}, Tail::gradients, [&](StepRunner& runner, int) {
    runner.run(1, {}, random_sequences(whole.seed, whole.model.vocabulary));
    EXPECT_NEAR(runner.summary().loss, loss, 1e-12 * loss);
    for (const Parameter& parameter : runner.step().parameters) {
      const std::vector<double> expected = runner.gradient(parameter);
      for (std::size_t i = 0; i < expected.size(); ++i)
        ASSERT_NEAR(gradients[parameter.name][i], expected[i], 1e-12) << parameter.name;
    }
  });
}

// A wrong gradient must not pass: the comparison itself is tried on a program whose weights differ.
TEST(Equivalence, ADifferenceIsSeen) {
  const StepOptions options = small_step(fresh_seed());
  const SequenceReader read = random_sequences(options.seed, options.model.vocabulary);
  on_ranks({.mesh = {}, .options = options}, Tail::gradients, [&](StepRunner& runner, int) {
    runner.run(1, {}, read);
    ReferenceStep reference = take_reference_step(options, runner.executor().device(), 1, read);
    EXPECT_LT(deviation_from(reference, runner).worst(), 1e-12);
    reference.gradients.at("layers.1.mlp.up.bias")[3] += 1e-6 * reference.largest_gradient;
    const Deviation found = deviation_from(reference, runner);
    EXPECT_GT(found.gradient, 1e-7);
    EXPECT_EQ(found.parameter, "layers.1.mlp.up.bias");
  });
}

}  // namespace
}  // namespace annulus::testing
