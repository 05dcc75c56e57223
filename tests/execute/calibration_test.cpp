// A quick calibration on ranks that are threads: the same profile on all of them, complete, and fit for predictions.
#include "runtime/execute/calibration.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "collectives/thread_communicator.h"
#include "runtime/cpu/device.h"
#include "runtime/ops/op_kind.h"
#include "tests/over_cpu_device.h"

namespace annulus {
namespace {

TEST(Calibration, EveryRankGetsTheSameCompleteProfile) {
  std::vector<HardwareProfile> profiles(2);
  run_ranks(2, [&](Communicator& world) {
    CpuDevice device(1);
    profiles[static_cast<std::size_t>(world.rank())] =
        calibrate(device, world, {.mode = CalibrationMode::quick, .progress = Progress::thread});
  });
  const HardwareProfile& profile = profiles[0];
  EXPECT_EQ(profile, profiles[1]);
  EXPECT_EQ(profile, parse_hardware_profile(to_json(profile), "profile"));
  EXPECT_NE(profile.name.find("first-run default"), std::string::npos);
  for (const auto& [size, rate] : profile.products.at(DType::f32).points())
    EXPECT_LE(rate, 2 * profile.peak_flops_per_second) << size;  // rates leave the start of the op out
  for (const char* kind :
       {"add",           "add_bias",   "column_sum", "gelu",       "gelu_grad",   "layer_norm", "layer_norm_grad",
        "embed",         "embed_grad", "dropout",    "row_max",    "row_sum_exp", "row_target", "row_softmax",
        "residual_norm", "nll",        "nll_grad",   "accumulate", "sum_squares", "zero",       "adamw"}) {
    EXPECT_TRUE(profile.kernels.contains(kind)) << kind;
    EXPECT_TRUE(profile.far_seconds_per_byte.contains(kind)) << kind;
  }
  for (const char* kind : {"matmul", "attention_step", "attention_step_grad"})
    EXPECT_TRUE(profile.far_seconds_per_byte.contains(kind)) << kind;
  EXPECT_FALSE(profile.after_bytes.empty());
  EXPECT_FALSE(profile.after_seconds.empty());
  ASSERT_EQ(profile.overlap.size(), 3u);
  for (const OverlapCost& cost : profile.overlap) EXPECT_GE(cost.beside_seconds, cost.alone_seconds);
  for (CollectiveKind kind :
       {CollectiveKind::all_reduce, CollectiveKind::all_gather, CollectiveKind::reduce_scatter, CollectiveKind::shift})
    EXPECT_TRUE(profile.collectives.contains({kind, 2})) << name_of(kind);
  for (CollectiveKind kind : {CollectiveKind::all_reduce, CollectiveKind::all_gather})
    EXPECT_TRUE(profile.collectives.contains({kind, 2, 1, Transport::direct, Operands::in_place})) << name_of(kind);
}

/// On which the first calls of one kind are disturbed.
class DisturbedDevice final : public testing::OverCpuDevice {
 public:
  static constexpr auto kDelay = std::chrono::milliseconds(20);
  DisturbedDevice(OpKind kind, int calls) : OverCpuDevice(1), kind_(kind), left_(calls) {}
  void run(const OpDefinition& definition, const KernelArguments& arguments) override {
    if (definition.kind() == kind_ && left_-- > 0) std::this_thread::sleep_for(kDelay);
    host_.run(definition, arguments);
  }

 private:
  OpKind kind_;
  int left_;
};

TEST(Calibration, WhatDisturbsOneRoundIsLeftOut) {
  constexpr int kCallsOfARound = 5 * 6;  // of each size 5, and one before; of one size near and far, too
  HardwareProfile profile;
  run_ranks(1, [&](Communicator& world) {
    DisturbedDevice device(OpKind::adamw, kCallsOfARound);
    profile = calibrate(device, world, {.mode = CalibrationMode::quick, .progress = Progress::thread});
  });
  const double disturbed = 4e6 / std::chrono::duration<double>(DisturbedDevice::kDelay).count();  // bytes a call
  for (const auto& [size, rate] : profile.kernels.at("adamw").points()) EXPECT_GT(rate, 2 * disturbed) << size;
}

}  // namespace
}  // namespace annulus
