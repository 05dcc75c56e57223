// What happens when a rank on streams does not come along: it is named from the words that its device writes, and
// everything that is under way can be ended.
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <mutex>
#include <regex>
#include <string>
#include <thread>

#include "collectives/watchdog.h"
#include "runtime/core/error.h"
#include "tests/streams/stream_ranks.h"

namespace annulus::testing {
namespace {

Composition small_composition(Execution execution) {
  Composition composition{.mesh = {.dp = 2, .cp = 1, .tp = 2}, .options = small_step(fresh_seed())};
  composition.options.micro_batches = 2;
  composition.executor.execution = execution;
  return composition;
}

void take_step(const Composition& composition, StepRunner& runner) {
  runner.run(1, hyper_of(composition.options, 1, 1e-3),
             random_sequences(composition.options.seed, composition.options.model.vocabulary));
}

void meet(Communicator& outer) {
  float meeting = 0;
  wait(outer.all_reduce(&meeting, &meeting, 1, DType::f32, Reduction::sum));
}

class Failure : public ::testing::TestWithParam<Execution> {};
INSTANTIATE_TEST_SUITE_P(, Failure, ::testing::Values(Execution::ops, Execution::graph),
                         [](const auto& parameter) { return parameter.param == Execution::ops ? "ops" : "graph"; });

// Graphs hold communicators, whose abort waits for them: the main thread lets them go, while others abort.
TEST_P(Failure, AnAbortEndsAStepThatIsUnderWay) {
  const Composition composition = small_composition(GetParam());
  std::mutex mutex;
  std::vector<std::string> messages;
  on_stream_ranks(composition, Tail::update, [&](StreamRank& rank) {
    for (int step = 0; step < 2; ++step) take_step(composition, rank.runner());
    meet(rank.outer());
    rank.fabric().freeze();
    std::thread aborting([&world = rank.world()] {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      world.abort();
    });
    try {
      take_step(composition, rank.runner());
      ADD_FAILURE() << "the step ended";
    } catch (const CollectiveError& error) {
      const std::lock_guard lock(mutex);
      messages.emplace_back(error.what());
    }
    rank.end_runner();
    aborting.join();
  });
  ASSERT_EQ(messages.size(), 4u);
  for (const std::string& message : messages) EXPECT_NE(message.find("NCCL was aborted"), std::string::npos) << message;
}

/// Hands what a rank's device tells to the watchdog, as launch/ does.
class Watched final : public OpMonitor {
 public:
  explicit Watched(Watchdog& watchdog) : watchdog_(watchdog) {}
  void begin(std::uint64_t, const char*, double) override { FAIL() << "streams are not told about op by op"; }
  void end() override {}
  void watch(std::function<Activity()> activity) override {
    if (!activity) return watchdog_.watch(nullptr);
    watchdog_.watch([asked = std::move(activity)] {
      const Activity now = asked();
      return Watchdog::Sample{now.sequence + 1, now.busy, now.what, 0, now.lane, now.begun};
    });
  }

 private:
  Watchdog& watchdog_;
};

/// By rank, what `rank 2 in an op behind something (operation 809)` tells of them.
std::map<int, int> operations_of_ranks(const std::string& text) {
  std::map<int, int> operations;
  const std::regex place(R"(rank (\d+) [^()]*\(operation (\d+)\))");
  for (std::sregex_iterator found(text.begin(), text.end(), place), end; found != end; ++found)
    operations[std::stoi((*found)[1])] = std::stoi((*found)[2]);
  return operations;
}

TEST_P(Failure, AStoppedRankIsNamedFromTheWordsOfItsDevice) {
  const Composition composition = small_composition(GetParam());
  constexpr int kStopped = 2;
  const WatchdogOptions options{
      .heartbeat_seconds = 0.05, .silence_seconds = 30, .least_deadline_seconds = 3, .connect_seconds = 30};
  std::mutex mutex;
  std::vector<std::string> told;
  on_stream_ranks(composition, Tail::update, [&](StreamRank& rank) {
    Watchdog watchdog(
        rank.outer().rank(), rank.outer().size(), exchange_over(rank.outer()),
        [&](const std::string& message) {
          {
            const std::lock_guard lock(mutex);
            told.push_back(message);
          }
          rank.world().abort();
        },
        options);
    Watched watched(watchdog);
    rank.runner(&watched);
    take_step(composition, rank.runner());
    const std::int64_t before = rank.streams().carried_out();
    take_step(composition, rank.runner());
    // In the middle of the third step, which is like the second, this rank's device begins no collective any more.
    const std::int64_t now = rank.streams().carried_out();
    if (rank.outer().rank() == kStopped) rank.streams().stop_after(now + (now - before) / 2);
    try {
      take_step(composition, rank.runner());
      ADD_FAILURE() << "the step ended";
    } catch (const CollectiveError& error) {
      EXPECT_NE(std::string(error.what()).find("NCCL was aborted"), std::string::npos) << error.what();
    }
    rank.end_runner();
  });
  ASSERT_EQ(told.size(), 4u);
  for (const std::string& message : told) {
    EXPECT_EQ(message, told.front());
    EXPECT_NE(message.find("<"), std::string::npos) << message << ": names no axes";
    const std::size_t late = message.find("late: ");
    if (late == std::string::npos) {  // it has begun what all have, and does not tell of its end
      EXPECT_NE(message.find("has not ended on rank 2 "), std::string::npos) << message;
      continue;
    }
    const auto operations = operations_of_ranks(message.substr(late));
    ASSERT_TRUE(operations.contains(kStopped)) << message;
    for (const auto& [rank, operation] : operations)
      EXPECT_GE(operation, operations.at(kStopped))
          << message << ": rank " << rank << " waits, if only by way of others";
  }
}

TEST(LastResort, ComesWhereTheMainThreadDoesNotLeave) {
  std::atomic<int> failed{0}, ended{0};
  {
    Watchdog watchdog(
        0, 1, [](const std::string& own) { return own; }, [&](const std::string&) { ++failed; },
        {.heartbeat_seconds = 0.05, .least_deadline_seconds = 0.1, .last_seconds = 0.2}, [&] { ++ended; });
    watchdog.begin(1, "an op", 0.1);
    while (ended == 0) std::this_thread::yield();
  }
  EXPECT_EQ(failed, 1);
  EXPECT_EQ(ended, 1);
}

}  // namespace
}  // namespace annulus::testing
