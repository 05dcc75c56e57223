// Updates on meshes give one rank's weights, in float64; one rank's are what AdamW's definition says.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "runtime/ops/op_kind.h"
#include "tests/model/composition.h"

namespace annulus::testing {
namespace {

constexpr int kSteps = 4;
constexpr double kLearningRate = 3e-3;

using Weights = std::map<std::string, std::vector<double>>;

StepOptions clipped_step(std::uint64_t seed) {
  StepOptions options = small_step(seed);
  options.clip_norm = 0.05;  // far below the norm of a fresh model
  options.optimizer.weight_decay = 0.3;
  return options;
}

Composition on_one_rank(const Composition& composition) {
  return {.mesh = {}, .options = one_rank_options(composition.options, composition.mesh.dp)};
}

void expect_equal(const Weights& actual, const Weights& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (const auto& [name, values] : expected) {
    const std::vector<double>& got = actual.at(name);
    ASSERT_EQ(got.size(), values.size());
    double error = 0;
    for (std::size_t i = first_comparable(name, values.size()); i < values.size(); ++i) {
      const double now = std::abs(got[i] - values[i]);
      if (!(now <= error)) error = now;
    }
    EXPECT_LT(error, 1e-9) << name;
  }
}

void expect_one_rank_weights(const Composition& composition) {
  SCOPED_TRACE(describe(composition));
  expect_equal(weights_after(composition, kSteps, kLearningRate),
               weights_after(on_one_rank(composition), kSteps, kLearningRate));
}

TEST(OptimizerPath, MeshesGiveOneRanksWeights) {
  const std::uint64_t seed = fresh_seed();
  std::vector<Composition> all(5, {.mesh = {}, .options = clipped_step(seed)});
  all[0].mesh = {.tp = 4};
  all[0].options.model.kv_heads = 2;
  all[1].mesh = {.tp = 3};
  all[1].options.sequence_parallel = SequenceParallel::on;
  all[2].mesh = {.cp = 3};
  all[2].options.layout = RingLayout::striped;
  all[3].mesh = {.dp = 2};
  all[3].options.micro_batches = 2;
  all[4].mesh = {.dp = 2, .cp = 2, .tp = 2};
  all[4].options.sequence_parallel = SequenceParallel::on;
  all[4].options.micro_batches = 2;
  all[4].options.model.dropout = {0.1, 0.1, 0.1};
  for (const Composition& composition : all) expect_one_rank_weights(composition);
}

TEST(OptimizerPath, ClippingIsActive) {
  Composition clipped{.mesh = {.tp = 2}, .options = clipped_step(fresh_seed())};
  on_ranks(clipped, Tail::gradients, [&](StepRunner& runner, int) {
    runner.run(1, {}, random_sequences(clipped.options.seed, clipped.options.model.vocabulary));
    EXPECT_GT(runner.summary().gradient_norm, 2 * clipped.options.clip_norm);
  });
}

/// What AdamW makes of the initial weights in one step, from the step's own gradients.
Weights first_update(const StepOptions& options) {
  Weights expected;
  const AdamW::Options& adam = options.optimizer;
  on_ranks({.mesh = {}, .options = options}, Tail::gradients, [&](StepRunner& runner, int) {
    runner.run(1, {}, random_sequences(options.seed, options.model.vocabulary));
    const double norm = runner.summary().gradient_norm;
    const double factor = std::min(1.0, options.clip_norm / (norm + 1e-6));
    for (const Parameter& parameter : runner.step().parameters) {
      const std::vector<double> gradient = runner.gradient(parameter);
      std::vector<double> weight = read_floats(runner.executor(), parameter.value);
      const double decay = parameter.shape.rank() > 1 ? adam.weight_decay : 0;
      for (std::size_t i = 0; i < weight.size(); ++i) {
        const double g = gradient[i] * factor;  // both moments are unbiased to g and g^2 at the first step
        weight[i] -= kLearningRate * (g / (std::abs(g) + adam.epsilon) + decay * weight[i]);
      }
      weight.resize(static_cast<std::size_t>(parameter.shape.elements()));
      expected[parameter.name] = std::move(weight);
    }
  });
  return expected;
}

TEST(OptimizerPath, TheFirstStepIsAdamWs) {
  const StepOptions options = clipped_step(fresh_seed());
  expect_equal(weights_after({.mesh = {}, .options = options}, 1, kLearningRate), first_update(options));
}

int count_of(const Program& program, OpKind kind) {
  return static_cast<int>(
      std::ranges::count_if(program.ops(), [&](const Op& op) { return op.definition->kind() == kind; }));
}

/// However many parameters there are: those that decay, those that do not; norms by the axes that shard the gradients.
TEST(OptimizerPath, TheTailIsAFewOps) {
  Composition composition{.mesh = {.tp = 2}, .options = clipped_step(fresh_seed())};
  for (const SequenceParallel shared : {SequenceParallel::off, SequenceParallel::on})
    for (const DType dtype : {DType::f32, DType::bf16}) {
      composition.options.sequence_parallel = shared;
      composition.options.dtype = dtype;
      on_ranks(composition, Tail::update, [&](StepRunner& runner, int) {
        EXPECT_EQ(count_of(runner.step().program, OpKind::adamw), 2);
        EXPECT_EQ(count_of(runner.step().program, OpKind::sum_squares), 2);
      });
    }
  composition = {.mesh = {.dp = 2}, .options = clipped_step(fresh_seed())};
  on_ranks(composition, Tail::update, [&](StepRunner& runner, int) {
    EXPECT_EQ(count_of(runner.step().program, OpKind::adamw), static_cast<int>(runner.step().buckets.size()));
    EXPECT_EQ(count_of(runner.step().program, OpKind::sum_squares), 1);
  });
}

TEST(OptimizerPath, TheLossOfOneBatchFalls) {
  StepOptions options = clipped_step(fresh_seed());
  options.clip_norm = 1;
  on_ranks({.mesh = {.cp = 2, .tp = 2}, .options = options}, Tail::update, [&](StepRunner& runner, int) {
    const SequenceReader read = random_sequences(options.seed, options.model.vocabulary);
    runner.run(1, hyper_of(options, 1, 1e-2), read);
    const double before = runner.summary().loss;
    for (int step = 2; step <= 30; ++step) runner.run(step, hyper_of(options, step, 1e-2), read);
    EXPECT_LT(runner.summary().loss, 0.7 * before);
  });
}

}  // namespace
}  // namespace annulus::testing
