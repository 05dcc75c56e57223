// A quick calibration on ranks that are threads: the same profile on all of them, complete, and fit for predictions.
#include "runtime/execute/calibration.h"

#include <gtest/gtest.h>

#include "collectives/thread_communicator.h"
#include "runtime/cpu/device.h"

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
  for (const char* kind : {"add", "add_bias", "column_sum", "gelu", "gelu_grad", "layer_norm", "layer_norm_grad",
                           "embed", "embed_grad", "dropout", "row_max", "row_sum_exp", "row_target", "row_softmax",
                           "residual_norm", "nll", "nll_grad", "accumulate"})
    EXPECT_TRUE(profile.kernels.contains(kind)) << kind;
  for (const char* kind : {"sum_squares", "zero", "adamw"}) EXPECT_TRUE(profile.state_kernels.contains(kind)) << kind;
  EXPECT_FALSE(profile.overlap.empty());
  for (CollectiveKind kind :
       {CollectiveKind::all_reduce, CollectiveKind::all_gather, CollectiveKind::reduce_scatter, CollectiveKind::shift})
    EXPECT_TRUE(profile.collectives.contains({kind, 2})) << name_of(kind);
  for (CollectiveKind kind : {CollectiveKind::all_reduce, CollectiveKind::all_gather})
    EXPECT_TRUE(profile.collectives.contains({kind, 2, 1, Transport::direct, Operands::in_place})) << name_of(kind);
}

}  // namespace
}  // namespace annulus
