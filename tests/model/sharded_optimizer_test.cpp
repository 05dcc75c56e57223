// ZeRO-1: updates are those of the unsharded optimizer, and of one rank; every element has one owner.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <mutex>

#include "tests/model/composition.h"

namespace annulus::testing {
namespace {

constexpr int kSteps = 4;
constexpr double kLearningRate = 3e-3;

/// Meshes with data to share: dp, cp, both, beside tp with and without SP, kv heads that tp replicates, micro-batches,
/// groups of 3 and 6 that divide hardly any parameter.
std::vector<Composition> compositions(std::uint64_t seed) {
  StepOptions options = small_step(seed);
  options.clip_norm = 0.05;
  options.optimizer.weight_decay = 0.3;
  std::vector<Composition> all(8, {.mesh = {}, .options = options});
  all[0].mesh = {.dp = 2};
  all[1].mesh = {.dp = 3};
  all[1].options.model.hidden = 25;
  all[2].mesh = {.dp = 2, .cp = 3};
  all[2].options.micro_batches = 3;
  all[3].mesh = {.dp = 2, .cp = 2, .tp = 2};
  all[3].options.sequence_parallel = SequenceParallel::on;
  all[4].mesh = {.cp = 2, .tp = 4};
  all[4].options.model.kv_heads = 2;
  all[4].options.micro_batches = 2;
  all[5].mesh = {.dp = 2, .tp = 3};
  all[5].options.model.kv_heads = 1;
  all[5].options.sequence_parallel = SequenceParallel::on;
  all[6].mesh = {.dp = 2, .cp = 2};
  all[6].options.bucket_bytes = 1;
  all[6].options.model.dropout = {0.1, 0.1, 0.1};
  all[7].mesh = {.dp = 4};
  all[7].options.bucket_bytes = 1 << 30;
  all[7].executor = {.progress = Progress::thread, .disturb_seed = seed};
  return all;
}

void expect_equal(const std::map<std::string, std::vector<double>>& actual,
                  const std::map<std::string, std::vector<double>>& expected) {
  for (const auto& [name, values] : expected) {
    for (std::size_t i = first_comparable(name, values.size()); i < values.size(); ++i)
      ASSERT_NEAR(actual.at(name)[i], values[i], 1e-9) << name << " " << i;
  }
}

TEST(ShardedOptimizer, WeightsAreThoseOfTheUnsharded) {
  for (Composition& composition : compositions(fresh_seed())) {
    SCOPED_TRACE(describe(composition));
    const auto weights = weights_after(composition, kSteps, kLearningRate);
    composition.options.optimizer_sharding = OptimizerSharding::none;
    expect_equal(weights, weights_after(composition, kSteps, kLearningRate));
    expect_equal(weights,
                 weights_after({.mesh = {}, .options = one_rank_options(composition.options, composition.mesh.dp)},
                               kSteps, kLearningRate));
  }
}

TEST(ShardedOptimizer, EveryElementHasOneOwner) {
  for (const Composition& composition : compositions(fresh_seed())) {
    SCOPED_TRACE(describe(composition));
    std::map<std::string, std::vector<double>> owners;
    std::mutex mutex;
    on_ranks(composition, Tail::gradients, [&](StepRunner& runner, int) {
      EXPECT_TRUE(runner.step().gradients.empty());
      for (const Parameter& parameter : runner.step().parameters) {
        const ValueType& type = runner.step().program.type(parameter.value);
        const OwnedRange owned = runner.owned(parameter);
        ASSERT_LE(owned.first + owned.count, type.shape.elements());
        std::vector<double> mine(static_cast<std::size_t>(type.shape.elements()));
        std::fill_n(mine.begin() + owned.first, owned.count, 1.0);
        std::vector<double> whole(static_cast<std::size_t>(parameter.shape.elements()));
        put_shard(runner.mesh(), parameter, type, reinterpret_cast<const std::byte*>(mine.data()), 0,
                  type.shape.elements(), reinterpret_cast<std::byte*>(whole.data()));
        const std::lock_guard lock(mutex);
        std::vector<double>& sum = owners[parameter.name];
        sum.resize(whole.size());
        for (std::size_t i = 0; i < whole.size(); ++i) sum[i] += whole[i];
      }
    });
    const int tp = composition.mesh.tp;
    const bool sequence_parallel = composition.options.sequence_parallel == SequenceParallel::on;
    for (const auto& [name, sums] : owners) {
      // What tp replicates without sharing the work on its gradient is updated by all of its ranks.
      const bool row_bias = name.ends_with("output.bias") || name.ends_with("down.bias");
      const bool replicated = name.find("norm") != std::string::npos || name.ends_with("positions") || row_bias;
      const double expected = replicated && !sequence_parallel ? tp : 1;
      for (double sum : sums) ASSERT_EQ(sum, expected) << name;
    }
  }
}

TEST(ShardedOptimizer, OneRankOfDataHasNothingToShare) {
  const Composition composition{.mesh = {.tp = 2}, .options = small_step(fresh_seed())};
  on_ranks(composition, Tail::update, [&](StepRunner& runner, int) {
    EXPECT_TRUE(runner.step().buckets.empty());
    EXPECT_EQ(runner.step().gradients.size(), runner.step().parameters.size());
  });
}

}  // namespace
}  // namespace annulus::testing
