// The block context of the tests itself: it finds what would go wrong on a GPU.
#include "tests/cuda/fibers.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "runtime/core/error.h"

namespace annulus::testing {
namespace {

class Fibers : public ::testing::Test {
 protected:
  Fibers() : scheduler(seed) { std::cout << "seed " << seed << "\n"; }
  std::uint64_t seed = std::random_device{}();
  FiberScheduler scheduler;
};

TEST_F(Fibers, ReductionsOfEveryBlockSize) {
  for (int threads = kWarp; threads <= kThreads; threads += kWarp) {
    std::vector<double> sums(static_cast<std::size_t>(3 * threads));
    scheduler.run({3, reduction_bytes<double>(), threads}, [&](FiberBlock& block) {
      for (int again = 0; again < 2; ++again) {  // the second reuses the shared memory of the first
        sums[static_cast<std::size_t>(block.index() * threads + block.thread())] =
            reduce_block(block, static_cast<double>(block.index() * 1000 + block.thread() + again), 0.0, AddValues());
      }
    });
    for (std::int64_t i = 0; i < 3 * threads; ++i) {
      const double expected = threads * (static_cast<double>(i / threads) * 1000 + 1) + threads * (threads - 1) / 2.0;
      EXPECT_EQ(sums[static_cast<std::size_t>(i)], expected) << threads << " threads, " << i;
    }
  }
}

TEST_F(Fibers, LanesOfPartOfAWarp) {
  std::vector<int> largest(kThreads);
  scheduler.run({1}, [&](FiberBlock& block) {
    largest[static_cast<std::size_t>(block.thread())] = reduce_lanes(block, block.thread(), 16, LargerValue());
  });
  for (int i = 0; i < kThreads; ++i) EXPECT_EQ(largest[static_cast<std::size_t>(i)], i / 16 * 16 + 15);
}

TEST_F(Fibers, ABarrierThatNotAllThreadsReachIsAnError) {
  EXPECT_THROW(scheduler.run({1},
                             [](FiberBlock& block) {
                               if (block.thread() != 77) block.sync();
                             }),
               InternalError);
  EXPECT_THROW(scheduler.run({1},
                             [](FiberBlock& block) {
                               if (block.thread() % 2 == 0) block.shuffle_xor(1, 1);
                             }),
               InternalError);
}

TEST_F(Fibers, AMissingBarrierShows) {
  // Each thread reads what its neighbour writes: right with a barrier between, wrong for some order without.
  const auto wrong = [&](bool with_barrier) {
    int count = 0;
    for (int round = 0; round < 10; ++round) {
      scheduler.run({1, kThreads * sizeof(int)}, [&](FiberBlock& block) {
        int* values = reinterpret_cast<int*>(block.shared());
        values[block.thread()] = block.thread();
        if (with_barrier) block.sync();
        const int neighbour = (block.thread() + 1) % kThreads;
        count += values[neighbour] != neighbour ? 1 : 0;
      });
    }
    return count;
  };
  EXPECT_EQ(wrong(true), 0);
  EXPECT_GT(wrong(false), 0);
}

TEST_F(Fibers, WhatABodyThrowsIsThrown) {
  EXPECT_THROW(scheduler.run({2},
                             [](FiberBlock& block) {
                               if (block.index() == 1) throw DeviceError("x");
                             }),
               DeviceError);
  std::int64_t blocks = 0;
  scheduler.run({5}, [&](FiberBlock& block) { blocks += block.thread() == 0 ? 1 : 0; });
  EXPECT_EQ(blocks, 5);
}

}  // namespace
}  // namespace annulus::testing
