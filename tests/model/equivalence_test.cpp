// Every sharded step equals one rank's: loss, norm and every gradient, in float64. Ranks are threads.
#include <gtest/gtest.h>

#include <mutex>
#include <random>

#include "collectives/thread_communicator.h"
#include "model/verify.h"
#include "runtime/cpu/device.h"

namespace annulus {
namespace {

struct Case {
  MeshShape mesh;
  RingLayout layout = RingLayout::zigzag;
  SequenceParallel sequence_parallel = SequenceParallel::off;
  int micro_batches = 1;
  double dropout = 0;
  std::int64_t kv_heads = 12;
};

StepOptions small_step(const Case& which, std::uint64_t seed) {
  StepOptions options;
  options.model = {.layers = 2,
                   .hidden = 24,
                   .heads = 12,
                   .kv_heads = which.kv_heads,
                   .head_dim = 4,
                   .ffn = 48,
                   .vocabulary = 37,
                   .vocabulary_padding = 4,
                   .block_size = 24,
                   .initial_std = 0.3,
                   .dropout = {which.dropout, which.dropout, which.dropout}};
  options.dtype = DType::f64;
  options.sequence_parallel = which.sequence_parallel;
  options.layout = which.layout;
  options.sequence_length = 24;
  options.micro_sequences = 2;
  options.micro_batches = which.micro_batches;
  options.bucket_bytes = 4096;
  options.seed = seed;
  return options;
}

Deviation deviation(const Case& which, std::uint64_t seed) {
  const StepOptions options = small_step(which, seed);
  const SequenceReader read = random_sequences(seed, options.model.vocabulary);
  CpuDevice device(1);
  const ReferenceStep reference = take_reference_step(one_rank_options(options, which.mesh.dp), device, 7, read);
  Deviation worst;
  std::mutex mutex;
  run_ranks(which.mesh.ranks(), [&](Communicator& world) {
    MeshShape shape = which.mesh;
    shape.kv_heads = static_cast<int>(which.kv_heads);
    const MeshAxes mesh = make_mesh(shape, world.rank());
    Groups groups(world, mesh);
    CpuDevice own(1);
    StepRunner runner(mesh, options, Tail::gradients, own,
                      [&](AxisSet axes) -> Communicator& { return groups.over(axes); });
    runner.initialize();
    runner.run(7, {}, read);
    const Deviation found = deviation_from(reference, runner);
    const std::lock_guard lock(mutex);
    worst = std::max(worst, found);
  });
  return worst;
}

std::uint64_t fresh_seed() {
  const std::uint64_t seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  return seed;
}

void expect_equal(const Case& which) {
  const Deviation found = deviation(which, fresh_seed());
  EXPECT_LT(found.loss, 1e-12);
  EXPECT_LT(found.norm, 1e-11);
  EXPECT_LT(found.gradient, 1e-10) << found.parameter;
}

TEST(Equivalence, OneRankIsReproducible) { expect_equal({.mesh = {}}); }
TEST(Equivalence, MicroBatches) { expect_equal({.mesh = {}, .micro_batches = 3}); }
TEST(Equivalence, TensorParallel) { expect_equal({.mesh = {.tp = 2}}); }
TEST(Equivalence, SequenceParallel) { expect_equal({.mesh = {.tp = 2}, .sequence_parallel = SequenceParallel::on}); }
TEST(Equivalence, RingContiguous) { expect_equal({.mesh = {.cp = 2}, .layout = RingLayout::contiguous}); }
TEST(Equivalence, RingStriped) { expect_equal({.mesh = {.cp = 3}, .layout = RingLayout::striped}); }
TEST(Equivalence, RingZigzag) { expect_equal({.mesh = {.cp = 4}, .layout = RingLayout::zigzag}); }
TEST(Equivalence, DataParallel) { expect_equal({.mesh = {.dp = 2}, .micro_batches = 3}); }
TEST(Equivalence, GroupedQueries) {
  expect_equal({.mesh = {.tp = 4}, .sequence_parallel = SequenceParallel::on, .kv_heads = 2});
}
TEST(Equivalence, Everything) {
  expect_equal({.mesh = {.dp = 2, .cp = 2, .tp = 2},
                .sequence_parallel = SequenceParallel::on,
                .micro_batches = 3,
                .dropout = 0.2,
                .kv_heads = 4});
}
TEST(Equivalence, DropoutDoesNotDependOnTheMesh) { expect_equal({.mesh = {.cp = 2, .tp = 2}, .dropout = 0.3}); }

}  // namespace
}  // namespace annulus
