// Transfers through the host's memory: the whole suite, over "device" memory that only the copies may touch.
#include "collectives/staged_communicator.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <random>

#include "collectives/thread_communicator.h"
#include "tests/collectives/suite.h"

namespace annulus {
namespace {

class StagedRanks : public testing::TestWithParam<int> {
 protected:
  void run(const std::function<void(Communicator& world)>& body) {
    const ThreadWorld threads(GetParam());
    run_ranks(GetParam(), [&](Communicator& outer) {
      const auto copy = [this](void* to, const void* from, std::int64_t bytes) {
        std::memcpy(to, from, static_cast<std::size_t>(bytes));
        copied_ += bytes;
      };
      const auto world = staged_communicator(threads.communicator(outer.rank()), {.to_host = copy, .to_device = copy});
      body(*world);
    });
  }
  std::atomic<std::int64_t> copied_{0};
};

TEST_P(StagedRanks, EveryCollective) {
  SuiteOptions options;
  options.seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << options.seed);
  run([&](Communicator& world) { check_collectives(world, options); });
  EXPECT_GT(copied_, 0);
}
TEST_P(StagedRanks, Splits) { run(check_splits); }
TEST_P(StagedRanks, Counters) { run(check_counters); }
TEST_P(StagedRanks, Refusals) { run(check_refusals); }

INSTANTIATE_TEST_SUITE_P(, StagedRanks, testing::Values(1, 2, 3, 5));

TEST(Staged, ResultsComeToTheDeviceWhenTheTransferIsComplete) {
  run_ranks(2, [](Communicator& host) {
    std::vector<float> device = {1, 2, 3};
    std::int64_t out = 0, in = 0;
    const auto world =
        staged_communicator(host.split(0, host.rank()), {.to_host =
                                                             [&](void* to, const void* from, std::int64_t bytes) {
                                                               out += bytes;
                                                               std::memcpy(to, from, static_cast<std::size_t>(bytes));
                                                             },
                                                         .to_device =
                                                             [&](void* to, const void* from, std::int64_t bytes) {
                                                               in += bytes;
                                                               std::memcpy(to, from, static_cast<std::size_t>(bytes));
                                                             }});
    Communicator::Pending sum = world->all_reduce(device.data(), device.data(), 3, DType::f32, Reduction::sum);
    EXPECT_EQ(out, 12);
    EXPECT_EQ(device, (std::vector<float>{1, 2, 3}));  // untouched until the test that finds it complete
    EXPECT_EQ(in, 0);
    while (!sum->test()) {
    }
    EXPECT_EQ(in, 12);
    EXPECT_TRUE(sum->test());
    EXPECT_EQ(in, 12);
    EXPECT_EQ(device, (std::vector<float>{2, 4, 6}));
  });
}

}  // namespace
}  // namespace annulus
