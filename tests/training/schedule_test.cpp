#include "runtime/training/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

namespace annulus {
namespace {

constexpr double kPeak = 6e-4, kMinimum = 6e-5;

LearningRateSchedule schedule_of(Decay decay) {
  return {
      .decay = decay, .peak = kPeak, .minimum = kMinimum, .warmup_steps = 10, .total_steps = 110, .decay_steps = 20};
}

TEST(Schedule, WarmsUpLinearlyToThePeak) {
  for (const Decay decay : {Decay::cosine, Decay::linear, Decay::constant_then_decay}) {
    for (int step = 0; step < 10; ++step) {
      EXPECT_DOUBLE_EQ(learning_rate(schedule_of(decay), step), kPeak * (step + 1) / 10);
    }
    EXPECT_DOUBLE_EQ(learning_rate(schedule_of(decay), 10), kPeak);
    EXPECT_DOUBLE_EQ(learning_rate(schedule_of(decay), 110), kMinimum);
    EXPECT_DOUBLE_EQ(learning_rate(schedule_of(decay), 1'000'000), kMinimum);
  }
}

TEST(Schedule, CosineIsHalfACosine) {
  const auto at = [](int step) { return learning_rate(schedule_of(Decay::cosine), step); };
  EXPECT_DOUBLE_EQ(at(60), (kPeak + kMinimum) / 2);
  EXPECT_DOUBLE_EQ(at(35), kMinimum + (kPeak - kMinimum) * (1 + std::sqrt(0.5)) / 2);
  EXPECT_DOUBLE_EQ(at(10 + 33) + at(10 + 67), kPeak + kMinimum) << "odd about its middle";
}

TEST(Schedule, LinearFallsEvenly) {
  for (int step = 10; step <= 110; ++step) {
    EXPECT_NEAR(learning_rate(schedule_of(Decay::linear), step), kPeak - (kPeak - kMinimum) * (step - 10) / 100, 1e-18);
  }
}

TEST(Schedule, ConstantThenDecayFallsAtTheEnd) {
  for (int step = 10; step <= 90; ++step)
    EXPECT_EQ(learning_rate(schedule_of(Decay::constant_then_decay), step), kPeak);
  for (int step = 90; step <= 110; ++step) {
    EXPECT_NEAR(learning_rate(schedule_of(Decay::constant_then_decay), step),
                kPeak - (kPeak - kMinimum) * (step - 90) / 20, 1e-18);
  }
}

TEST(Schedule, HasNoCornerThatDividesByZero) {
  LearningRateSchedule all_warmup{.peak = 1, .warmup_steps = 4, .total_steps = 4};
  EXPECT_EQ(learning_rate(all_warmup, 3), 1);
  EXPECT_EQ(learning_rate(all_warmup, 4), 0);
  LearningRateSchedule one{.peak = 1, .total_steps = 1};
  EXPECT_EQ(learning_rate(one, 0), 1);
  LearningRateSchedule constant{.decay = Decay::constant_then_decay, .peak = 1, .minimum = 0.5, .total_steps = 3};
  for (int step = 0; step < 3; ++step) EXPECT_EQ(learning_rate(constant, step), 1);
  EXPECT_EQ(learning_rate(constant, 3), 0.5);
}

TEST(Schedule, NamesAllItsProblems) {
  EXPECT_TRUE(problems_of(schedule_of(Decay::cosine)).empty());
  EXPECT_TRUE(problems_of(schedule_of(Decay::constant_then_decay)).empty());
  const auto problems = problems_of(
      {.decay = Decay::constant_then_decay, .peak = 0.1, .minimum = 0.2, .warmup_steps = 5, .total_steps = 4});
  ASSERT_EQ(problems.size(), 3u);
  EXPECT_NE(problems[0].find("minimum=0.2 is not between 0 and peak=0.1"), std::string::npos) << problems[0];
  EXPECT_NE(problems[1].find("warmup_steps=5 is not between 0 and total_steps=4; shorten"), std::string::npos)
      << problems[1];
  EXPECT_NE(problems[2].find("decay_steps=0 is not between 0 and total_steps - warmup_steps = -1"), std::string::npos)
      << problems[2];
  EXPECT_EQ(problems_of({.peak = std::nan(""), .total_steps = 1}).size(), 2u);
  EXPECT_EQ(problems_of({.peak = 1, .total_steps = 0}).size(), 1u);
}

}  // namespace
}  // namespace annulus
