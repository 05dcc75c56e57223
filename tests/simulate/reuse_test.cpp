// What caches still hold of an arena, by hand.
#include "runtime/simulate/reuse.h"

#include <gtest/gtest.h>

namespace annulus {
namespace {

constexpr std::int64_t kMB = 1 << 20;
constexpr double kPart = 2e4;  // bytes: an arena is seen in parts

/// Caches that lose what was touched 100 MB ago, or 1 s, and half of it at 10 MB, or 0.1 s.
HardwareProfile machine() {
  HardwareProfile profile;
  profile.after_bytes = RateCurve({{1. * kMB, 3e9}, {10. * kMB, 1.5e9}, {100. * kMB, 1e9}});
  profile.after_seconds = RateCurve({{0.01, 3e9}, {0.1, 1.5e9}, {1, 1e9}});
  return profile;
}

TEST(Reuse, SharesAreOfSecondsPerByte) {
  HardwareProfile profile = machine();
  EXPECT_NEAR(profile.far_share(0, 0), 0, 1e-12);
  EXPECT_NEAR(profile.far_share(10 * kMB, 0), 0.5, 1e-12);
  EXPECT_NEAR(profile.far_share(0, 0.1), 0.5, 1e-12);
  EXPECT_NEAR(profile.far_share(10 * kMB, 0.1), 0.5, 1e-12) << "the worse of the two, not both";
  EXPECT_NEAR(profile.far_share(1e12, 0), 1, 1e-12);
  EXPECT_NEAR(profile.far_share(0, 1e3), 1, 1e-12);
  profile.after_seconds = RateCurve({{1, 3e9}});
  EXPECT_NEAR(profile.far_share(0, 1e3), 0, 1e-12) << "a host of one's own loses nothing by time";
  EXPECT_EQ(HardwareProfile().far_share(1e12, 1e3), 0) << "nothing measured";
}

TEST(Reuse, FarIsWhatWasTouchedLongAgo) {
  const HardwareProfile profile = machine();
  Reuse reuse(200 * kMB);
  EXPECT_NEAR(reuse.far_bytes(0, 3 * kMB, 0, profile), 3 * kMB, kPart) << "never touched";
  reuse.touch(0, 2 * kMB, 5);
  EXPECT_NEAR(reuse.far_bytes(0, 2 * kMB, 5, profile), 0, kPart);
  EXPECT_NEAR(reuse.far_bytes(0, 3 * kMB, 5, profile), kMB, kPart) << "the third was not";
  EXPECT_NEAR(reuse.far_bytes(kMB, kMB, 5.1, profile), 0.5 * kMB, kPart);
  reuse.touch(100 * kMB, 10 * kMB, 5);
  EXPECT_NEAR(reuse.far_bytes(0, 2 * kMB, 5, profile), kMB, kPart) << "10 MB ago";
  EXPECT_NEAR(reuse.far_bytes(100 * kMB, 10 * kMB, 5, profile), 0, kPart);
  reuse.touch(0, kMB, 5);
  reuse.end_step(5);
  EXPECT_NEAR(reuse.far_bytes(0, kMB, 0, profile), 0, kPart);
  EXPECT_NEAR(reuse.far_bytes(0, kMB, 0.1, profile), 0.5 * kMB, kPart) << "clocks go on from step to step";
}

TEST(Reuse, ALargeArenaIsSeenInCoarserParts) {
  const std::int64_t bytes = std::int64_t{1} << 37;
  Reuse reuse(bytes);
  reuse.touch(bytes - kMB, kMB, 0);
  EXPECT_NEAR(reuse.far_bytes(bytes - kMB, kMB, 0, machine()), 0, 1);
  EXPECT_NEAR(reuse.far_bytes(0, bytes / 2, 0, machine()), static_cast<double>(bytes / 2), 1);
}

}  // namespace
}  // namespace annulus
