#include "runtime/training/loss_scale.h"

#include <gtest/gtest.h>

#include <cmath>

namespace annulus {
namespace {

TEST(LossScaler, HalvesWhereGradientsAreNotFiniteAndGrowsAfterAWhile) {
  LossScaler scaler(1024, 3);
  scaler.update(1.0);
  scaler.update(2.0);
  EXPECT_EQ(scaler.scale(), 1024);
  scaler.update(INFINITY);
  scaler.update(NAN);
  EXPECT_EQ(scaler.scale(), 256);
  EXPECT_EQ(scaler.skipped(), 2);
  for (int step = 0; step < 6; ++step) {
    EXPECT_EQ(scaler.scale(), step < 3 ? 256 : 512) << step;
    scaler.update(1.0);
  }
  EXPECT_EQ(scaler.scale(), 1024);
  EXPECT_EQ(scaler.skipped(), 2);
}

}  // namespace
}  // namespace annulus
