// The discrete-event walk against times worked out by hand.
#include "runtime/simulate/prediction.h"

#include <gtest/gtest.h>

#include "runtime/ops/recorder.h"

namespace annulus {
namespace {

constexpr double kProduct = 1.0;   // seconds of one product
constexpr double kTransfer = 0.4;  // of one all-reduce, alone

/// One rank in two: a product of 2 * 8^3 FLOPs takes kProduct, an all-reduce of it kTransfer.
HardwareProfile machine() {
  HardwareProfile profile;
  profile.products[DType::f32] = RateCurve({{1, 1024 / kProduct}});
  profile.attention_forward = profile.attention_backward = profile.products;
  profile.memory = RateCurve({{1, 1e30}});
  profile.collectives[{CollectiveKind::all_reduce, 2}] = TransferCurve({{256, kTransfer}, {1024, 2 * kTransfer}});
  return profile;
}

/// x w, an all-reduce of it over an axis of two, `hidden` products that do not need the sum, and one that does; all of
/// it `repeat` times.
Program program(int hidden, int repeat) {
  Program program(MeshAxes{{{"a", 2, 0}}, {}});
  program.begin_segment("body", repeat);
  Recorder recorder(program);
  Placements columns{}, rows{};
  columns[0] = Placement::sharded(1);
  rows[0] = Placement::sharded(0);
  const ValueId x = program.leaf("x", Role::input, DType::f32, {8, 16}, columns);
  const ValueId w = program.leaf("w", Role::parameter, DType::f32, {16, 8}, rows);
  const ValueId v = program.leaf("v", Role::parameter, DType::f32, {8, 8});
  const ValueId sum = recorder.all_reduce(recorder.matmul(x, w), AxisSet(0));
  for (int i = 0; i < hidden; ++i) recorder.matmul(v, v);
  recorder.matmul(sum, v);
  return program;
}

StepPrediction predicted(const Program& program, const HardwareProfile& profile) {
  const Schedule schedule = make_schedule(program);
  return predict_step(program, schedule, plan_memory(program, schedule, [](auto&&...) { return 0; }), profile);
}

TEST(Prediction, AnUnhiddenTransferIsExposedWhole) {
  const StepPrediction step = predicted(program(0, 3), machine());
  EXPECT_NEAR(step.step_seconds, 3 * (2 * kProduct + kTransfer), 1e-9);
  EXPECT_NEAR(step.compute_seconds, 3 * 2 * kProduct, 1e-9);
  EXPECT_NEAR(step.communication_seconds, 3 * kTransfer, 1e-9);
  EXPECT_NEAR(step.exposed_seconds, 3 * kTransfer, 1e-9);
  EXPECT_EQ(step.flops, 3 * 2 * 1024.0);
}

TEST(Prediction, ATransferBesideEnoughComputeIsHidden) {
  const StepPrediction step = predicted(program(1, 1), machine());
  EXPECT_NEAR(step.step_seconds, 3 * kProduct, 1e-9);
  EXPECT_NEAR(step.communication_seconds, kTransfer, 1e-9);
  EXPECT_NEAR(step.exposed_seconds, 0, 1e-9);
}

TEST(Prediction, TransfersBesideComputeTakeLonger) {
  HardwareProfile profile = machine();
  // Of the hidden transfer a fifth of a second's work is done; the rest is waited for.
  profile.overlap = {{kTransfer, 5 * kTransfer, 0}};
  const StepPrediction step = predicted(program(1, 1), profile);
  const double rest = kTransfer - kProduct / 5;
  EXPECT_NEAR(step.step_seconds, 3 * kProduct + rest, 1e-9);
  EXPECT_NEAR(step.communication_seconds, kProduct + rest, 1e-9);
  EXPECT_NEAR(step.exposed_seconds, rest, 1e-9);
}

TEST(Prediction, ComputeBesideTransfersTakesLonger) {
  HardwareProfile profile = machine();
  profile.overlap = {{kTransfer, kTransfer, 0.5 * kTransfer}};
  const StepPrediction step = predicted(program(1, 1), profile);
  EXPECT_NEAR(step.step_seconds, 3 * kProduct + 0.5 * kTransfer, 1e-9);
  EXPECT_NEAR(step.compute_seconds, 3 * kProduct, 1e-9);
  EXPECT_NEAR(step.exposed_seconds, 0.5 * kTransfer, 1e-9);
}

TEST(Prediction, WhatLeftTheCachesTakesLonger) {
  // A step is far longer than caches keep anything, so that x, w and v come from memory, 256 bytes each. What op leaves
  // to op has just been touched.
  HardwareProfile profile = machine();
  profile.after_seconds = RateCurve({{1e-3 * kProduct, 2e9}, {0.9 * kProduct, 1e9}});
  profile.far_seconds_per_byte["matmul"] = 1e-3 * kProduct;
  const StepPrediction near = predicted(program(0, 1), machine()), far = predicted(program(0, 1), profile);
  EXPECT_NEAR(far.compute_seconds, near.compute_seconds + 1e-3 * kProduct * 3 * 256, 1e-9);
  profile.after_seconds = {};
  EXPECT_DOUBLE_EQ(predicted(program(0, 1), profile).compute_seconds, near.compute_seconds) << "caches keep all";
}

TEST(Prediction, HostsOfAGroup) {
  // Ranks 0 to 11 in order; this one is dp 1, cp 0, tp 2 of 2 x 2 x 3: rank 8.
  const MeshAxes mesh{{{"dp", 2, 1}, {"cp", 2, 0}, {"tp", 3, 2}}, {}};
  const AxisSet dp(0), cp(1), tp(2);
  EXPECT_EQ(hosts_of(mesh, tp, 3), 1);       // 6, 7, 8
  EXPECT_EQ(hosts_of(mesh, tp, 4), 2);       // 6, 7 | 8
  EXPECT_EQ(hosts_of(mesh, cp, 3), 2);       // 8 | 11
  EXPECT_EQ(hosts_of(mesh, cp, 6), 1);       // 8, 11
  EXPECT_EQ(hosts_of(mesh, dp, 6), 2);       // 2 | 8
  EXPECT_EQ(hosts_of(mesh, dp | cp, 3), 4);  // 2 | 5 | 8 | 11
  EXPECT_EQ(hosts_of(mesh, dp | cp | tp, 6), 2);
  EXPECT_EQ(hosts_of(mesh, dp | cp | tp, 0), 1);  // all on one
}

}  // namespace
}  // namespace annulus
