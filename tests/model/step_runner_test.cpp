// What stands around a step: initial values, whole weights in and out of shards, evaluation, the order of collectives.
#include "model/step_runner.h"

#include <gtest/gtest.h>

#include <mutex>
#include <set>

#include "collectives/thread_communicator.h"
#include "runtime/cpu/device.h"
#include "tests/model/composition.h"

namespace annulus::testing {
namespace {

Composition everything(std::uint64_t seed) {
  Composition composition{.mesh = {.dp = 2, .cp = 2, .tp = 2}, .options = small_step(seed)};
  composition.options.sequence_parallel = SequenceParallel::on;
  composition.options.micro_batches = 2;
  composition.options.model.kv_heads = 4;
  return composition;
}

const std::byte* bytes_of(const std::vector<double>& values) {
  return reinterpret_cast<const std::byte*>(values.data());
}

// Weights before the first step are the same numbers, to the bit, whatever the mesh.
TEST(StepRunner, InitialWeightsDoNotDependOnTheMesh) {
  const Composition spread = everything(fresh_seed());
  const Composition alone{.mesh = {}, .options = one_rank_options(spread.options, 2)};
  const auto weights = weights_after(spread, 0, 0);
  EXPECT_EQ(weights, weights_after(alone, 0, 0));
  std::set<double> different;
  for (double x : weights.at("layers.0.mlp.up.weight")) different.insert(x);
  EXPECT_EQ(different.size(), weights.at("layers.0.mlp.up.weight").size());
}

TEST(StepRunner, WholeWeightsComeBackFromShards) {
  Composition composition = everything(fresh_seed());
  composition.mesh = {.dp = 1, .cp = 2, .tp = 4};
  composition.options.model.kv_heads = 2;
  std::map<std::string, std::vector<double>> given, returned;
  std::mutex mutex;
  on_ranks(composition, Tail::update, [&](StepRunner& runner, int) {
    double next = 0;
    for (const Parameter& parameter : runner.step().parameters) {
      std::vector<double> whole(static_cast<std::size_t>(parameter.shape.elements()));
      for (double& x : whole) x = ++next;
      runner.load(parameter, bytes_of(whole));
      const std::lock_guard lock(mutex);
      returned[parameter.name].resize(whole.size());
      runner.store(parameter, reinterpret_cast<std::byte*>(returned[parameter.name].data()));
      given[parameter.name] = std::move(whole);
    }
  });
  EXPECT_EQ(returned, given);
}

std::vector<double> evaluate(const MeshShape& mesh_shape, const StepOptions& options) {
  std::vector<double> sums;
  std::mutex mutex;
  MeshShape shape = mesh_shape;
  shape.kv_heads = static_cast<int>(options.model.kv_heads);
  run_ranks(shape.ranks(), [&](Communicator& world) {
    const MeshAxes mesh = make_mesh(shape, world.rank());
    Groups groups(world, mesh);
    CpuDevice device(1);
    const EvaluateStep step = record_evaluate_step(mesh, options);
    Executor executor(step.program, device, groups.lookup());
    write_initial_values(executor, step.parameters, options.seed);
    executor.run([&](const Segment&, int) {
      bind_batch(executor, step.inputs,
                 assemble_batch(mesh, options, 0, random_sequences(options.seed, options.model.vocabulary)), 0);
    });
    const std::lock_guard lock(mutex);
    sums = read_floats(executor, step.sums);
  });
  return sums;
}

TEST(StepRunner, EvaluationEqualsOneRankAndTraining) {
  Composition spread = everything(fresh_seed());
  spread.options.micro_batches = 1;
  const std::vector<double> sums = evaluate(spread.mesh, spread.options);
  const std::vector<double> alone = evaluate({}, one_rank_options(spread.options, 2));
  EXPECT_NEAR(sums[0], alone[0], 1e-12 * alone[0]);
  EXPECT_EQ(sums[1], alone[1]);
  on_ranks(spread, Tail::gradients, [&](StepRunner& runner, int) {
    runner.run(1, {}, random_sequences(spread.options.seed, spread.options.model.vocabulary));
    EXPECT_NEAR(runner.summary().loss, sums[0] / sums[1], 1e-12);
  });
  spread.options.model.dropout = {0.5, 0.5, 0.5};
  EXPECT_EQ(evaluate(spread.mesh, spread.options), sums) << "dropout is for training";
}

TEST(StepRunner, CollectivesHaveOneOrderOnAllRanks) {
  const Composition composition = everything(fresh_seed());
  MeshShape shape = composition.mesh;
  shape.kv_heads = 4;
  std::set<std::uint64_t> hashes;
  for (int rank = 0; rank < shape.ranks(); ++rank)
    hashes.insert(communication_hash(record_train_step(make_mesh(shape, rank), composition.options).program));
  EXPECT_EQ(hashes.size(), 1u);
  StepOptions other = composition.options;
  other.bucket_bytes = 1;
  hashes.insert(communication_hash(record_train_step(make_mesh(shape, 0), other).program));
  EXPECT_EQ(hashes.size(), 2u);
}

}  // namespace
}  // namespace annulus::testing
