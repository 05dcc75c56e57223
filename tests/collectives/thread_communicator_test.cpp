#include "collectives/thread_communicator.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "runtime/core/error.h"
#include "tests/collectives/suite.h"

namespace annulus {
namespace {

class ThreadRanks : public testing::TestWithParam<int> {};

TEST_P(ThreadRanks, EveryCollective) {
  SuiteOptions options;
  options.seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << options.seed);
  run_ranks(GetParam(), [&](Communicator& world) { check_collectives(world, options); });
}

TEST_P(ThreadRanks, Splits) { run_ranks(GetParam(), check_splits); }
TEST_P(ThreadRanks, Counters) { run_ranks(GetParam(), check_counters); }
TEST_P(ThreadRanks, Refusals) { run_ranks(GetParam(), check_refusals); }

INSTANTIATE_TEST_SUITE_P(, ThreadRanks, testing::Range(1, 9));

/// What run_ranks throws.
std::string message_of(int size, const std::function<void(Communicator&)>& body) {
  try {
    run_ranks(size, body);
  } catch (const std::exception& error) {
    return error.what();
  }
  return "nothing was thrown";
}

testing::AssertionResult holds(const std::string& text, const std::string& part) {
  if (text.find(part) != std::string::npos) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "'" << part << "' is not in: " << text;
}

TEST(ThreadErrors, DifferentCallsAreNamed) {
  const std::string text = message_of(3, [](Communicator& world) {
    std::vector<float> data(12), more(12);
    wait(world.all_reduce(data.data(), data.data(), 2, DType::f32, Reduction::sum));
    if (world.rank() == 2) {
      wait(world.all_gather(data.data(), more.data(), 4, DType::f32));
    } else {
      wait(world.all_reduce(data.data(), more.data(), 4, DType::f32, Reduction::max));
    }
  });
  EXPECT_TRUE(holds(text, "all_gather(count=4, f32)"));
  EXPECT_TRUE(holds(text, "all_reduce(count=4, f32, max)"));
  EXPECT_TRUE(holds(text, "call number 1"));
}

TEST(ThreadErrors, DifferentCountsOfAMessageAreNamed) {
  const std::string text = message_of(2, [](Communicator& world) {
    std::vector<double> data(8);
    if (world.rank() == 0) wait(world.send(data.data(), 7, DType::f64, 1));
    if (world.rank() == 1) wait(world.recv(data.data(), 8, DType::f64, 0));
  });
  EXPECT_TRUE(holds(text, "send(count=7, f64, to 1)"));
  EXPECT_TRUE(holds(text, "recv(count=8, f64, from 0)"));
}

TEST(ThreadErrors, TheCauseIsThrownAndNobodyHangs) {
  const std::string text = message_of(4, [](Communicator& world) {
    const auto pair = world.split(world.rank() / 2, 0);
    std::vector<float> data(1000);
    Communicator::Pending own = pair->all_reduce(data.data(), data.data(), 1000, DType::f32, Reduction::sum);
    if (world.rank() == 1) throw std::runtime_error("rank 1 gives up");
    wait(std::move(own));
    wait(world.all_reduce(data.data(), data.data(), 1, DType::f32, Reduction::sum));
  });
  EXPECT_EQ(text, "rank 1 gives up");
}

TEST(ThreadErrors, ARankThatReturnsEarlyIsNamed) {
  const std::string text = message_of(3, [](Communicator& world) {
    float value = 1;
    if (world.rank() != 1) wait(world.all_reduce(&value, &value, 1, DType::f32, Reduction::sum));
  });
  EXPECT_TRUE(holds(text, "rank 1 has left the group without call number 0"));
}

TEST(ThreadErrors, FailureOfTheWorldReachesGroups) {
  const ThreadWorld threads(1);
  const auto world = threads.communicator(0);
  const auto group = world->split(5, 5);
  float value = 1;
  Communicator::Pending pending = group->recv(&value, 1, DType::f32, 0);
  EXPECT_FALSE(pending->test());
  threads.fail("the watchdog says so");
  EXPECT_THROW(pending->test(), CollectiveError);
}

TEST(ThreadRanksAlone, AMessageToOneself) {
  run_ranks(1, [](Communicator& world) {
    std::vector<float> from = {1, 2, 3}, to(3);
    Communicator::Pending sending = world.send(from.data(), 3, DType::f32, 0);
    Communicator::Pending receiving = world.recv(to.data(), 3, DType::f32, 0);
    wait(std::move(sending));
    wait(std::move(receiving));
    EXPECT_EQ(from, to);
  });
}

}  // namespace
}  // namespace annulus
