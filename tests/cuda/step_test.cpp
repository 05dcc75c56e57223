// Whole training steps by the CUDA kernels' bodies, ranks over the NCCL communicator, against one rank on the CPU's
// kernels: everything that a step on GPUs is made of, but the hardware and its libraries.
#include <gtest/gtest.h>

#include <mutex>

#include "collectives/nccl_communicator.h"
#include "collectives/staged_communicator.h"
#include "collectives/thread_communicator.h"
#include "tests/collectives/nccl_fake.h"
#include "tests/cuda/fiber_device.h"
#include "tests/model/composition.h"

namespace annulus::testing {
namespace {

constexpr std::int64_t kStep = 3;

/// A smaller one than the CPU's tests take: each thread of a block is switched to some thousand times a step.
StepOptions tiny_step(std::uint64_t seed) {
  StepOptions options = small_step(seed);
  options.model.heads = 4;
  options.model.kv_heads = 2;
  options.model.hidden = 16;
  options.model.ffn = 24;
  options.model.block_size = options.sequence_length = 16;
  options.model.dropout = {0.1, 0.1, 0.1};
  options.micro_batches = 2;
  options.micro_sequences = 1;
  return options;
}

/// Runs `body` on every rank of the mesh, a thread each, on fibers and over NCCL's stand-in.
void on_gpu_ranks(const Composition& composition, Tail tail, const std::function<void(StepRunner& runner)>& body) {
  MeshShape shape = composition.mesh;
  shape.kv_heads = static_cast<int>(composition.options.model.kv_heads);
  const ThreadWorld threads(shape.ranks());
  NcclFabric fabric(composition.options.seed);
  run_ranks(shape.ranks(), [&](Communicator& outer) {
    const NcclWorld world = nccl_world(threads.communicator(outer.rank()), fabric.library());
    const MeshAxes mesh = make_mesh(shape, outer.rank());
    Groups groups(*world.communicator, mesh);
    FiberDevice device;
    StepRunner runner(record_train_step(mesh, composition.options, tail), composition.options, device, groups.lookup());
    runner.initialize();
    body(runner);
  });
}

/// The same through the host's memory, by the device's own copies.
void on_staged_ranks(const Composition& composition, Tail tail, const std::function<void(StepRunner& runner)>& body) {
  MeshShape shape = composition.mesh;
  shape.kv_heads = static_cast<int>(composition.options.model.kv_heads);
  const ThreadWorld threads(shape.ranks());
  run_ranks(shape.ranks(), [&](Communicator& outer) {
    FiberDevice device;
    const auto world = staged_communicator(
        threads.communicator(outer.rank()),
        {.to_host =
             [&](void* to, const void* from, std::int64_t bytes) {
               device.copy_from_device(to, static_cast<const std::byte*>(from), bytes);
             },
         .to_device = [&](void* to, const void* from,
                          std::int64_t bytes) { device.copy_to_device(static_cast<std::byte*>(to), from, bytes); }});
    const MeshAxes mesh = make_mesh(shape, outer.rank());
    Groups groups(*world, mesh);
    StepRunner runner(record_train_step(mesh, composition.options, tail), composition.options, device, groups.lookup());
    runner.initialize();
    body(runner);
  });
}

using OnRanks = decltype(&on_gpu_ranks);

class CudaStepOver : public ::testing::TestWithParam<OnRanks> {};
INSTANTIATE_TEST_SUITE_P(, CudaStepOver, ::testing::Values(&on_gpu_ranks, &on_staged_ranks),
                         [](const auto& which) { return which.param == &on_gpu_ranks ? "nccl" : "staged"; });

TEST_P(CudaStepOver, MeshesEqualOneRankOnTheCpu) {
  const std::uint64_t seed = fresh_seed();
  for (const MeshShape mesh : {MeshShape{1, 1, 1}, MeshShape{1, 2, 2}, MeshShape{2, 1, 1}}) {
    Composition composition{.mesh = mesh, .options = tiny_step(seed)};
    composition.options.sequence_parallel = mesh.tp > 1 ? SequenceParallel::on : SequenceParallel::off;
    SCOPED_TRACE(describe(composition));
    const SequenceReader read = random_sequences(seed, composition.options.model.vocabulary);
    CpuDevice cpu(1);
    const ReferenceStep reference =
        take_reference_step(one_rank_options(composition.options, mesh.dp), cpu, kStep, read);
    std::mutex mutex;
    Deviation worst;
    GetParam()(composition, Tail::gradients, [&](StepRunner& runner) {
      runner.run(kStep, {}, read);
      const std::lock_guard lock(mutex);
      worst = std::max(worst, deviation_from(reference, runner));
    });
    EXPECT_LT(worst.loss, 1e-12);
    EXPECT_LT(worst.norm, 1e-11);
    EXPECT_LT(worst.gradient, 1e-10) << worst.parameter;
  }
}

TEST(CudaStep, UpdatesEqualTheCpus) {
  const StepOptions options = tiny_step(fresh_seed());
  const SequenceReader read = random_sequences(options.seed, options.model.vocabulary);
  const auto weights = [&](StepRunner& runner) {
    for (int step = 1; step <= 2; ++step) runner.run(step, hyper_of(options, step, 1e-2), read);
    std::vector<double> all;
    for (const Parameter& parameter : runner.step().parameters) {
      const std::vector<double> values = read_floats(runner.executor(), parameter.value);
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  };
  std::vector<double> actual, expected;
  on_gpu_ranks({.mesh = {}, .options = options}, Tail::update, [&](StepRunner& runner) { actual = weights(runner); });
  on_ranks({.mesh = {}, .options = options}, Tail::update,
           [&](StepRunner& runner, int) { expected = weights(runner); });
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) ASSERT_NEAR(actual[i], expected[i], 1e-9) << i;
}

}  // namespace
}  // namespace annulus::testing
