// The NCCL communicator over a stand-in for NCCL and CUDA: nothing here has run on a GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <random>
#include <thread>
#include <vector>

#include "collectives/nccl_communicator.h"
#include "collectives/thread_communicator.h"
#include "runtime/core/error.h"
#include "tests/collectives/nccl_fake.h"
#include "tests/collectives/suite.h"

namespace annulus::testing {
namespace {

class NcclRanks : public ::testing::TestWithParam<int> {
 protected:
  NcclRanks() { std::cout << "seed " << seed_ << "\n"; }
  std::uint64_t seed_ = std::random_device{}();

  /// Runs `body` on ranks over a fabric of their own; `issued` becomes what each rank asked of NCCL.
  void run(const std::function<void(NcclWorld& world)>& body) {
    const ThreadWorld threads(GetParam());
    NcclFabric fabric(seed_);
    issued_.assign(static_cast<std::size_t>(GetParam()), {});
    run_ranks(GetParam(), [&](Communicator& outer) {
      NcclWorld world = nccl_world(threads.communicator(outer.rank()),
                                   fabric.library(&issued_[static_cast<std::size_t>(outer.rank())]));
      body(world);
      float meeting = 0;  // nobody leaves while others are at it
      wait(outer.all_reduce(&meeting, &meeting, 1, DType::f32, Reduction::sum));
    });
  }
  std::vector<std::vector<std::string>> issued_;
};

TEST_P(NcclRanks, EveryCollective) {
  SuiteOptions options;
  options.seed = seed_;
  options.order = SumOrder::any;
  run([&](NcclWorld& world) { check_collectives(*world.communicator, options); });
}
TEST_P(NcclRanks, Splits) {
  run([](NcclWorld& world) { check_splits(*world.communicator); });
}
TEST_P(NcclRanks, Counters) {
  run([](NcclWorld& world) { check_counters(*world.communicator); });
}
TEST_P(NcclRanks, Refusals) {
  run([](NcclWorld& world) { check_refusals(*world.communicator); });
}

TEST_P(NcclRanks, CallsAreIssuedInTheOrderOfTheProgramWhoeverIsTestedFirst) {
  run([&](NcclWorld& world) {
    Communicator& all = *world.communicator;
    const auto alone = all.split(all.rank(), 0);
    std::vector<float> data(16), more(16), parts(static_cast<std::size_t>(16 * all.size()));
    std::vector<Communicator::Pending> pending;
    pending.push_back(all.all_reduce(data.data(), data.data(), 16, DType::f32, Reduction::sum));
    pending.push_back(alone->reduce_scatter(more.data(), more.data(), 16, DType::f32, Reduction::sum));
    pending.push_back(all.all_gather(data.data(), parts.data(), 16, DType::f32));
    pending.push_back(alone->broadcast(more.data(), 16, DType::f32, 0));
    while (!pending.empty()) {  // the last one is asked for first
      if (pending.back()->test()) pending.pop_back();
    }
  });
  for (const auto& calls : issued_) {
    EXPECT_EQ(calls, (std::vector<std::string>{"all_reduce", "reduce_scatter", "all_gather", "broadcast"}));
  }
}

TEST_P(NcclRanks, AbortEndsWhatWouldNeverEnd) {
  const ThreadWorld threads(GetParam());
  NcclFabric fabric(seed_);
  std::vector<std::string> messages(static_cast<std::size_t>(GetParam()));
  run_ranks(GetParam(), [&](Communicator& outer) {
    NcclWorld world = nccl_world(threads.communicator(outer.rank()), fabric.library());
    const auto pair = world.communicator->split(0, 0);
    float meeting = 0;
    wait(outer.all_reduce(&meeting, &meeting, 1, DType::f32, Reduction::sum));
    fabric.freeze();
    std::vector<float> data(8);
    Communicator::Pending stuck = pair->all_reduce(data.data(), data.data(), 8, DType::f32, Reduction::sum);
    for (int i = 0; i < 100; ++i) EXPECT_FALSE(stuck->test());
    std::thread watchdog([&] { world.abort(); });
    watchdog.join();
    try {
      stuck->test();
    } catch (const CollectiveError& error) {
      messages[static_cast<std::size_t>(outer.rank())] = error.what();
    }
  });
  for (int rank = 0; rank < GetParam(); ++rank) {
    EXPECT_EQ(messages[static_cast<std::size_t>(rank)], "all_reduce(count=8, f32, sum) on rank " +
                                                            std::to_string(rank) + " of " + std::to_string(GetParam()) +
                                                            ": NCCL was aborted");
  }
}

template <class Action>
std::string failure(const Action& action) {
  try {
    action();
  } catch (const CollectiveError& error) {
    return error.what();
  }
  return {};
}

TEST_P(NcclRanks, AFailureIsToldWithRankAndCall) {
  const ThreadWorld threads(GetParam());
  NcclFabric fabric(seed_);
  run_ranks(GetParam(), [&](Communicator& outer) {
    const std::string who = "rank " + std::to_string(outer.rank()) + " of " + std::to_string(GetParam());
    const std::string why = "NCCL error 6: a remote rank is gone";
    std::vector<float> data(8);  // which other ranks write to as long as this one's group has not ended
    NcclWorld world = nccl_world(threads.communicator(outer.rank()), fabric.library());
    float meeting = 0;
    wait(outer.all_reduce(&meeting, &meeting, 1, DType::f32, Reduction::sum));
    fabric.fail();
    const std::string of_call =
        failure([&] { wait(world.communicator->all_reduce(data.data(), data.data(), 8, DType::f32, Reduction::sum)); });
    EXPECT_EQ(of_call, "all_reduce(count=8, f32, sum) on " + who + ": a group: " + why);
    EXPECT_EQ(failure([&] { world.communicator->check_health(); }), who + ": a group: " + why);
  });
}

TEST_P(NcclRanks, AGroupThatCannotStartIsAnErrorAndNoHang) {
  for (const bool fails : {false, true}) {
    const ThreadWorld threads(GetParam());
    NcclFabric fabric(seed_);
    fails ? fabric.fail() : fabric.freeze();
    run_ranks(GetParam(), [&](Communicator& outer) {
      const std::string why = failure([&] { nccl_world(threads.communicator(outer.rank()), fabric.library(), 0.05); });
      EXPECT_NE(why.find(fails ? "a remote rank is gone" : "have not found each other in 0.05 s"), std::string::npos)
          << why;
    });
  }
}

INSTANTIATE_TEST_SUITE_P(, NcclRanks, ::testing::Values(1, 2, 3, 5));

}  // namespace
}  // namespace annulus::testing
