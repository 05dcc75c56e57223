// Every count of a step: closed form = program = what kernels and communicators counted.
#include "model/counts.h"

#include <gtest/gtest.h>

#include <mutex>
#include <random>

#include "collectives/thread_communicator.h"
#include "model/analytic/of_step.h"
#include "runtime/cpu/device.h"
#include "tests/model/composition.h"

namespace annulus::testing {
namespace {

/// The table of every rank after one step; steps before it must not matter.
std::vector<CountsTable> tables_of(const Composition& composition, Tail tail, int steps_before) {
  std::vector<CountsTable> tables(static_cast<std::size_t>(composition.mesh.ranks()));
  const StepOptions& options = composition.options;
  const SequenceReader read = random_sequences(options.seed, options.model.vocabulary);
  run_ranks(composition.mesh.ranks(), [&](Communicator& world) {
    const MeshAxes mesh = make_mesh(composition.mesh, world.rank());
    Groups groups(world, mesh);
    CpuDevice device(1);
    StepRunner runner(mesh, options, tail, device, groups.lookup());
    runner.initialize();
    for (int step = 0; step < steps_before; ++step) runner.run(step, {}, read);
    MeasuredCounts measured(runner.executor(), groups);
    runner.run(steps_before, {}, read);
    tables[static_cast<std::size_t>(world.rank())] = compare_counts(closed_form_counts(symbols_of(mesh, options), mesh),
                                                                    program_counts(runner.step()), measured.counts());
  });
  return tables;
}

void expect_agreement(const Composition& composition) {
  for (const CountsTable& table : tables_of(composition, Tail::update, static_cast<int>(composition.options.seed % 2)))
    EXPECT_TRUE(table.agree) << describe(composition) << "\n" << table.text;
}

struct Mesh {
  MeshShape shape;
  RingLayout layout = RingLayout::zigzag;
  SequenceParallel sequence_parallel = SequenceParallel::off;
  int micro_batches = 1;
  DType dtype = DType::f32;
};

TEST(Counts, ThreeSourcesAgreeOnEveryMesh) {
  using enum SequenceParallel;
  using enum RingLayout;
  const Mesh meshes[] = {
      {{1, 1, 1, 12}, zigzag, off, 1, DType::f64},    {{1, 1, 1, 12}, zigzag, off, 3, DType::f32},
      {{1, 1, 1, 3}, zigzag, off, 2, DType::f32},     {{1, 1, 2, 12}, zigzag, off, 1, DType::f32},
      {{1, 1, 2, 12}, zigzag, on, 1, DType::f64},     {{1, 1, 3, 3}, zigzag, on, 2, DType::f32},
      {{1, 1, 4, 12}, zigzag, off, 1, DType::f32},    {{1, 1, 4, 2}, zigzag, off, 1, DType::f32},
      {{1, 1, 4, 2}, zigzag, on, 3, DType::f64},      {{1, 1, 4, 1}, zigzag, on, 1, DType::f32},
      {{1, 2, 1, 12}, zigzag, off, 1, DType::f32},    {{1, 2, 1, 12}, striped, off, 1, DType::f32},
      {{1, 2, 1, 4}, contiguous, off, 2, DType::f64}, {{1, 3, 1, 12}, contiguous, off, 1, DType::f32},
      {{1, 3, 1, 12}, striped, off, 3, DType::f32},   {{1, 4, 1, 6}, zigzag, off, 1, DType::f32},
      {{1, 4, 1, 12}, striped, off, 1, DType::f64},   {{2, 1, 1, 12}, zigzag, off, 1, DType::f32},
      {{2, 1, 1, 12}, zigzag, off, 3, DType::f64},    {{2, 1, 2, 12}, zigzag, on, 2, DType::f32},
      {{2, 2, 1, 12}, striped, off, 1, DType::f32},   {{1, 2, 2, 12}, zigzag, on, 1, DType::f32},
      {{1, 2, 2, 1}, contiguous, off, 2, DType::f32}, {{1, 2, 4, 2}, striped, on, 1, DType::f64},
      {{2, 2, 2, 4}, zigzag, on, 3, DType::f32},      {{2, 1, 4, 2}, zigzag, on, 2, DType::f32},
      {{1, 1, 1, 12}, zigzag, off, 1, DType::bf16},   {{2, 2, 1, 4}, striped, off, 2, DType::bf16},
      {{2, 1, 4, 2}, zigzag, on, 2, DType::bf16},     {{1, 3, 2, 12}, contiguous, off, 1, DType::f16},
  };
  const std::uint64_t seed = fresh_seed();
  for (const Mesh& mesh : meshes) {
    Composition composition{.mesh = mesh.shape, .options = small_step(seed)};
    StepOptions& options = composition.options;
    options.model.kv_heads = mesh.shape.kv_heads;
    options.layout = mesh.layout;
    options.sequence_parallel = mesh.sequence_parallel;
    options.micro_batches = mesh.micro_batches;
    options.dtype = mesh.dtype;
    expect_agreement(composition);
    if (HasFailure()) return;
  }
}

TEST(Counts, ADifferenceIsFound) {
  const Counts closed{{"a", 1}, {"b", 2}}, program{{"a", 1}, {"b", 2}}, measured{{"b", 3}};
  EXPECT_TRUE(compare_counts(closed, program, {}).agree);
  const CountsTable table = compare_counts(closed, program, measured);
  EXPECT_FALSE(table.agree);
  EXPECT_NE(table.text.find("differ"), std::string::npos);
  EXPECT_FALSE(compare_counts(closed, {{"a", 1}}, measured).agree) << "the program lacks b";
}

}  // namespace
}  // namespace annulus::testing
