#include "collectives/clock.h"

#include <gtest/gtest.h>

#include "collectives/thread_communicator.h"

namespace annulus {
namespace {

TEST(Clock, ThreadsShareOneClock) {
  run_ranks(4, [](Communicator& world) {
    const ClockOffset offset = align_clock(world);
    EXPECT_LE(std::abs(offset.seconds), offset.error_seconds + 1e-9) << "rank " << world.rank();
    EXPECT_EQ(offset.error_seconds == 0, world.rank() == 0);
    EXPECT_EQ(world.counters().calls, 0);
  });
}

TEST(Clock, TimeAdvances) {
  const double before = steady_seconds();
  EXPECT_GE(steady_seconds(), before);
}

}  // namespace
}  // namespace annulus
