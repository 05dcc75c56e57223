// Steps whose activations and working weights are bf16 or f16: against one rank, against f32, and what they keep in
// f32.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <mutex>

#include "model/weights.h"
#include "runtime/cpu/device.h"
#include "tests/model/composition.h"

namespace annulus::testing {
namespace {

/// Half a unit in the last place: what one rounding may change, relatively.
constexpr double rounding(DType dtype) { return dtype == DType::bf16 ? 0x1p-8 : 0x1p-11; }

/// Some 25 roundings lie on the longest way through the two layers and back; most cancel, few add up.
constexpr double kLossRoundings = 4, kGradientRoundings = 25;

SequenceReader sequences_of(const StepOptions& options) {
  return random_sequences(options.seed, options.model.vocabulary);
}

StepOptions half_step(std::uint64_t seed, DType dtype) {
  StepOptions options = small_step(seed);
  options.dtype = dtype;
  options.model.initial_std = 0.1;
  return options;
}

std::vector<Composition> compositions(std::uint64_t seed, DType dtype) {
  std::vector<Composition> all(8, {.mesh = {}, .options = half_step(seed, dtype)});
  all[0].mesh = {.tp = 2};
  all[1].mesh = {.tp = 2};
  all[1].options.sequence_parallel = SequenceParallel::on;
  all[2].mesh = all[3].mesh = all[4].mesh = {.cp = 2};
  all[2].options.layout = RingLayout::contiguous;
  all[3].options.layout = RingLayout::striped;
  all[5].mesh = {.dp = 2};
  all[5].options.micro_batches = 2;
  all[6].mesh = {.cp = 2, .tp = 2};
  all[6].options.model.dropout = {0.1, 0.1, 0.1};
  all[7].mesh = {.dp = 2, .tp = 4};
  all[7].options.model.kv_heads = 2;
  all[7].options.sequence_parallel = SequenceParallel::on;
  return all;
}

/// The largest deviation of any rank's step from a step on one rank of `dtype`.
Deviation deviation_from(const Composition& composition, DType dtype) {
  StepOptions alone = one_rank_options(composition.options, composition.mesh.dp);
  alone.dtype = dtype;
  CpuDevice device(1);
  const SequenceReader read = sequences_of(alone);
  const ReferenceStep reference = take_reference_step(alone, device, 3, read);
  Deviation worst;
  std::mutex mutex;
  on_ranks(composition, Tail::gradients, [&](StepRunner& runner, int) {
    runner.run(3, {}, read);
    const Deviation found = annulus::deviation_from(reference, runner);
    const std::lock_guard lock(mutex);
    worst = std::max(worst, found);
  });
  return worst;
}

class Half : public ::testing::TestWithParam<DType> {};

TEST_P(Half, MeshesAreWithinRoundingOfOneRankAndOfF32) {
  const DType dtype = GetParam();
  for (const Composition& composition : compositions(fresh_seed(), dtype))
    for (DType other : {dtype, DType::f32}) {
      SCOPED_TRACE(describe(composition) + " against " + std::string(name_of(other)));
      const Deviation found = deviation_from(composition, other);
      EXPECT_LT(found.loss, kLossRoundings * rounding(dtype));
      EXPECT_LT(found.norm, kGradientRoundings * rounding(dtype));
      EXPECT_LT(found.gradient, kGradientRoundings * rounding(dtype)) << found.parameter;
      if (other == dtype) continue;
      EXPECT_GT(found.gradient, rounding(dtype) / 100) << "nothing was rounded";
    }
}

/// Losses of `steps` steps on the same sequences.
std::vector<double> losses(const StepOptions& options, int steps) {
  std::vector<double> all;
  on_ranks({.mesh = {}, .options = options}, Tail::update, [&](StepRunner& runner, int) {
    for (int step = 1; step <= steps; ++step) {
      runner.run(step, hyper_of(options, step, 1e-2), sequences_of(options));
      all.push_back(runner.summary().loss);
    }
  });
  return all;
}

TEST_P(Half, TrainingFollowsF32) {
  constexpr int kSteps = 40;
  const std::uint64_t seed = fresh_seed();
  const std::vector<double> expected = losses(half_step(seed, DType::f32), kSteps);
  const std::vector<double> got = losses(half_step(seed, GetParam()), kSteps);
  EXPECT_LT(expected.back(), 0.9 * expected.front()) << "nothing was learnt";
  for (std::size_t step = 0; step < expected.size(); ++step)
    EXPECT_NEAR(got[step], expected[step], 20 * rounding(GetParam()) * expected.front()) << "step " << step + 1;
}

/// What a rank holds of a state or parameter, in its bits.
std::vector<double> values_of(const StepRunner& runner, ValueId id) { return read_floats(runner.executor(), id); }

TEST_P(Half, WorkingWeightsAreTheRoundedMasters) {
  for (OptimizerSharding sharding : {OptimizerSharding::none, OptimizerSharding::zero1}) {
    Composition composition{.mesh = {.dp = 2, .tp = 2}, .options = half_step(fresh_seed(), GetParam())};
    composition.options.optimizer_sharding = sharding;
    on_ranks(composition, Tail::update, [&](StepRunner& runner, int) {
      for (int step = 1; step <= 3; ++step)
        runner.run(step, hyper_of(runner.options(), step, 1e-2), sequences_of(runner.options()));
      std::int64_t compared = 0, inexact = 0;
      for (const Parameter& parameter : runner.step().parameters) {
        const OwnedRange range = master_range(runner.step().program, runner.mesh(), parameter);
        const std::vector<std::byte> bytes = read_weights(runner.executor(), parameter);
        const auto* masters = reinterpret_cast<const float*>(bytes.data());
        const std::vector<double> working = values_of(runner, parameter.value);
        dispatch_half(GetParam(), [&]<class T>(T) {
          for (std::int64_t i = 0; i < range.count; ++i, ++compared) {
            ASSERT_EQ(working[static_cast<std::size_t>(range.first + i)], static_cast<float>(T(masters[i])));
            inexact += static_cast<float>(T(masters[i])) != masters[i];
          }
        });
      }
      EXPECT_GT(inexact, compared / 2) << "masters are no more precise than what they are masters of";
    });
  }
}

TEST_P(Half, WholeWeightsComeBackFromMasters) {
  Composition composition{.mesh = {.dp = 2, .cp = 2, .tp = 2}, .options = half_step(fresh_seed(), GetParam())};
  std::map<std::string, std::vector<float>> given, returned;
  std::mutex mutex;
  on_ranks(composition, Tail::update, [&](StepRunner& runner, int) {
    float next = 1;
    for (const Parameter& parameter : runner.step().parameters) {
      std::vector<float> whole(static_cast<std::size_t>(parameter.shape.elements()));
      for (float& x : whole) x = next += 0x1p-12f;
      runner.load(parameter, reinterpret_cast<const std::byte*>(whole.data()));
      const std::lock_guard lock(mutex);
      returned[parameter.name].resize(whole.size());
      runner.store(parameter, reinterpret_cast<std::byte*>(returned[parameter.name].data()));
      given[parameter.name] = std::move(whole);
    }
  });
  EXPECT_EQ(returned, given);
}

INSTANTIATE_TEST_SUITE_P(, Half, ::testing::Values(DType::bf16, DType::f16),
                         [](const auto& drawn) { return std::string(name_of(drawn.param)); });

TEST(LossScaling, AStepThatOverflowsChangesNothingAndTheNextOneDoes) {
  Composition composition{.mesh = {.dp = 2, .tp = 2}, .options = half_step(fresh_seed(), DType::f16)};
  on_ranks(composition, Tail::update, [&](StepRunner& runner, int) {
    const auto all = [&] {
      std::vector<std::vector<double>> values;
      for (const Parameter& parameter : runner.step().parameters) values.push_back(values_of(runner, parameter.value));
      for (ValueId id : runner.step().masters) values.push_back(values_of(runner, id));
      for (ValueId id : runner.step().moments) values.push_back(values_of(runner, id));
      return values;
    };
    const auto before = all();
    StepHyper hyper = hyper_of(runner.options(), 1, 1e-2);
    hyper.loss_scale = 0x1p60;
    runner.run(1, hyper, sequences_of(runner.options()));
    EXPECT_FALSE(std::isfinite(runner.summary().gradient_norm));
    EXPECT_TRUE(std::isfinite(runner.summary().loss));
    EXPECT_EQ(all(), before);
    hyper.loss_scale = kInitialLossScale;
    runner.run(2, hyper, sequences_of(runner.options()));
    EXPECT_TRUE(std::isfinite(runner.summary().gradient_norm));
    EXPECT_NE(all(), before);
  });
}

// A power of two changes no bit of what stays a normal number: gradients are the same, but for those that vanish.
TEST(LossScaling, IsTakenOutAgain) {
  const StepOptions options = half_step(fresh_seed(), DType::f16);
  std::vector<double> norms;
  for (double scale : {256.0, 1024.0})
    on_ranks({.mesh = {}, .options = options}, Tail::gradients, [&](StepRunner& runner, int) {
      StepHyper hyper;
      hyper.loss_scale = scale;
      runner.run(1, hyper, sequences_of(options));
      norms.push_back(runner.summary().gradient_norm);
    });
  EXPECT_NEAR(norms[0] / norms[1], 1, rounding(DType::f16));
}

}  // namespace
}  // namespace annulus::testing
