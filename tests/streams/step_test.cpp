// Whole training steps on streams: stand-ins for a device's streams, events and graphs and for NCCL, whatever order the
// device carries out what may be carried out in any.
#include <gtest/gtest.h>

#include <algorithm>
#include <mutex>

#include "runtime/core/error.h"
#include "runtime/cpu/device.h"
#include "tests/streams/stream_ranks.h"

namespace annulus::testing {
namespace {

constexpr std::int64_t kStep = 3;

SequenceReader sequences_of(const StepOptions& options) {
  return random_sequences(options.seed, options.model.vocabulary);
}

Composition composition_of(const MeshShape& mesh, RingLayout layout, std::uint64_t seed) {
  Composition composition{.mesh = mesh, .options = small_step(seed)};
  composition.options.layout = layout;
  composition.options.sequence_parallel = mesh.tp > 1 ? SequenceParallel::on : SequenceParallel::off;
  composition.options.micro_batches = 2;
  composition.options.micro_sequences = 1;
  composition.options.model.dropout = {0.1, 0.1, 0.1};
  return composition;
}

struct Case {
  MeshShape mesh;
  RingLayout layout = RingLayout::zigzag;
};
const std::vector<Case> kCases = {{{1, 1, 1}},
                                  {{1, 2, 2}, RingLayout::contiguous},
                                  {{1, 2, 2}, RingLayout::striped},
                                  {{1, 2, 2}, RingLayout::zigzag},
                                  {{2, 1, 1}}};

class Steps : public ::testing::TestWithParam<Execution> {};
INSTANTIATE_TEST_SUITE_P(, Steps, ::testing::Values(Execution::ops, Execution::graph),
                         [](const auto& parameter) { return parameter.param == Execution::ops ? "ops" : "graph"; });

TEST_P(Steps, EqualOneRank) {
  const std::uint64_t seed = fresh_seed();
  for (const Case& which : kCases) {
    Composition composition = composition_of(which.mesh, which.layout, seed);
    composition.executor.execution = GetParam();
    SCOPED_TRACE(describe(composition));
    const SequenceReader read = sequences_of(composition.options);
    CpuDevice cpu(1);
    const ReferenceStep reference =
        take_reference_step(one_rank_options(composition.options, composition.mesh.dp), cpu, kStep, read);
    std::mutex mutex;
    Deviation worst;
    const auto issued = on_stream_ranks(composition, Tail::gradients, [&](StreamRank& rank) {
      for (int step = 0; step < 3; ++step) {  // the first is op by op, whatever the execution
        const Overlap overlap = step == 2 ? Overlap::off : Overlap::on;
        rank.runner().run(kStep, {}, read, overlap);
        const std::lock_guard lock(mutex);
        worst = std::max(worst, deviation_from(reference, rank.runner()));
      }
    });
    EXPECT_LT(worst.loss, 1e-12);
    EXPECT_LT(worst.norm, 1e-11);
    EXPECT_LT(worst.gradient, 1e-10) << worst.parameter;
    for (const auto& calls : issued) EXPECT_EQ(calls, issued.front()) << "all ranks ask for the same, in one order";
  }
}

/// Weights and moments of each rank after three updates, and the work that was counted.
std::vector<std::vector<double>> updated(const Composition& composition, bool on_streams) {
  std::vector<std::vector<double>> all(static_cast<std::size_t>(composition.mesh.ranks()));
  const auto update = [&](StepRunner& runner, int rank) {
    for (int step = 1; step <= 3; ++step)
      runner.run(step, hyper_of(composition.options, step, 1e-2), sequences_of(composition.options));
    std::vector<ValueId> values = runner.step().moments;
    for (const Parameter& parameter : runner.step().parameters) values.push_back(parameter.value);
    std::vector<double>& mine = all[static_cast<std::size_t>(rank)];
    for (ValueId id : values)
      for (double x : read_floats(runner.executor(), id)) mine.push_back(x);
    mine.push_back(runner.executor().counters().product_flops);
  };
  if (on_streams)
    on_stream_ranks(composition, Tail::update, [&](StreamRank& rank) { update(rank.runner(), rank.outer().rank()); });
  else
    on_ranks(composition, Tail::update, update);
  return all;
}

TEST_P(Steps, GiveTheHostsBits) {
  const std::uint64_t seed = fresh_seed();
  for (const MeshShape mesh : {MeshShape{1, 2, 2}, MeshShape{2, 1, 1}}) {
    Composition composition = composition_of(mesh, RingLayout::zigzag, seed);
    SCOPED_TRACE(describe(composition));
    const auto expected = updated(composition, false);
    composition.executor.execution = GetParam();
    EXPECT_EQ(updated(composition, true), expected);
    composition.executor.disturb_seed = seed;
    EXPECT_EQ(updated(composition, true), expected) << "delayed at random, freed bytes overwritten";
  }
}

// Every wait of a stream for another is there for a reason: without it, either the stand-in finds two orders that touch
// the same bytes and that nothing orders, or what the wait said is said by another one.
TEST_P(Steps, NoWaitCanBeLeftOut) {
  const std::uint64_t seed = fresh_seed();
  Composition composition = composition_of({1, 2, 2}, RingLayout::zigzag, seed);
  composition.options.micro_batches = 1;
  composition.options.model.layers = 1;
  composition.executor.execution = GetParam();
  const auto run = [&](std::optional<int> left_out, int& waits) {
    std::vector<std::vector<double>> all(4);
    on_stream_ranks(composition, Tail::gradients, [&](StreamRank& rank) {
      rank.runner().run(kStep, {}, sequences_of(composition.options));
      rank.streams().leave_out_wait(left_out.value_or(-1));
      rank.runner().run(kStep, {}, sequences_of(composition.options));
      auto& mine = all[static_cast<std::size_t>(rank.outer().rank())];
      for (const Parameter& parameter : rank.runner().step().parameters)
        for (double x : rank.runner().gradient(parameter)) mine.push_back(x);
      if (rank.outer().rank() == 0) waits = rank.streams().waits();
    });
    return all;
  };
  int waits = 0, unused = 0, caught = 0;
  const auto expected = run(std::nullopt, waits);
  ASSERT_GT(waits, 50);
  std::mt19937_64 engine(seed);
  constexpr int kCaught = 6, kMostMutants = 60;
  for (int i = 0; caught < kCaught && i < kMostMutants; ++i) {
    const int left_out = static_cast<int>(engine() % static_cast<std::uint64_t>(waits));
    try {
      EXPECT_EQ(run(left_out, unused), expected) << "wait " << left_out << " of " << waits;
    } catch (const InternalError& error) {
      const std::string what = error.what();
      EXPECT_TRUE(what.find("nothing orders") != std::string::npos ||
                  what.find("not in the capture") != std::string::npos ||
                  what.find("does not wait for") != std::string::npos)
          << what;
      ++caught;
    }
  }
  EXPECT_EQ(caught, kCaught) << "of " << kMostMutants;
}

TEST_P(Steps, AreReplayedSegmentBySegmentAfterTheFirst) {
  Composition composition = composition_of({1, 2, 1}, RingLayout::zigzag, fresh_seed());
  composition.executor.execution = GetParam();
  const bool graph = GetParam() == Execution::graph;
  on_stream_ranks(composition, Tail::update, [&](StreamRank& rank) {
    const auto step = [&](Overlap overlap) -> const StepTrace& {
      return rank.runner().run(kStep, hyper_of(composition.options, 1, 1e-3), sequences_of(composition.options),
                               overlap);
    };
    int runs = 0;
    for (const Segment& segment : rank.runner().step().program.segments()) runs += segment.repeat;
    const std::size_t events = step(Overlap::on).events.size();
    EXPECT_GT(events, 0u);
    EXPECT_EQ(rank.streams().launches(), 0);
    for (int i = 1; i <= 2; ++i) {
      EXPECT_EQ(step(Overlap::on).events.size(), graph ? 0 : events);
      EXPECT_EQ(rank.streams().launches(), graph ? i * runs : 0);
    }
    EXPECT_EQ(step(Overlap::off).events.size(), events) << "a probe is never replayed";
  });
}

TEST(StepsOnStreams, AreTimedByTheDevice) {
  const Composition composition = composition_of({1, 2, 2}, RingLayout::zigzag, fresh_seed());
  on_stream_ranks(composition, Tail::update, [&](StreamRank& rank) {
    Executor& executor = rank.runner().executor();
    const Program& program = executor.program();
    std::size_t runs = 0;
    for (const Op& op : program.ops())
      runs += static_cast<std::size_t>(program.segments()[static_cast<std::size_t>(op.segment)].repeat);
    for (const Overlap overlap : {Overlap::on, Overlap::off}) {
      const StepTrace& trace =
          rank.runner().run(kStep, hyper_of(composition.options, 1, 1e-3), sequences_of(composition.options), overlap);
      ASSERT_EQ(trace.events.size(), runs);
      double computed = 0, waited = 0;
      constexpr double kClocks = 1e-4;  // seconds by which the mapping of clocks may be wrong
      double before = trace.begin - kClocks;
      for (const OpEvent& event : trace.events) {
        EXPECT_LE(event.begin, event.end);
        EXPECT_LE(event.end, trace.end + kClocks);
        if (executor.schedule().lanes[static_cast<std::size_t>(event.op)] == 0) {
          EXPECT_GE(event.begin, before);
          before = event.end;
          computed += event.end - event.begin;
        } else {
          EXPECT_GE(event.arrival, before);
          EXPECT_LE(event.arrival, event.begin);
          EXPECT_EQ(event.transport, Transport::nccl);
          before = event.arrival;
          waited += event.waited;
          if (overlap == Overlap::off) {
            EXPECT_NEAR(event.waited, event.end - event.arrival, 1e-9);
          }
        }
      }
      EXPECT_GT(computed, 0);
      EXPECT_LE(computed + waited, trace.end - trace.begin + kClocks);
    }
  });
}

TEST(StepsOnStreams, AGraphNeedsStreams) {
  Composition composition{.mesh = {}, .options = small_step(fresh_seed())};
  composition.executor.execution = Execution::graph;
  EXPECT_THROW(on_ranks(composition, Tail::gradients, [](StepRunner&, int) {}), ConfigError);
}

}  // namespace
}  // namespace annulus::testing
