#include "launch/gpu_environment.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>

#include "runtime/core/error.h"

namespace annulus {
namespace {

using Variables = std::map<std::string, std::string>;

GpuEnvironment decide(const DeviceConfig& device, const Variables& user = {}, int rank = 3) {
  return gpu_environment(device, rank, [&](const char* name) {
    const auto found = user.find(name);
    return found == user.end() ? nullptr : found->second.c_str();
  });
}

Variables set_by(const GpuEnvironment& environment) { return {environment.set.begin(), environment.set.end()}; }

std::vector<std::string> problems(const DeviceConfig& device, const Variables& user) {
  try {
    decide(device, user);
  } catch (const ConfigError& error) {
    return error.problems();
  }
  return {};
}

const Variables kAlways = {{"NCCL_LAUNCH_ORDER_IMPLICIT", "1"}};
const Variables kDeterministic = {
    {"NCCL_LAUNCH_ORDER_IMPLICIT", "1"}, {"NCCL_NVLS_ENABLE", "0"}, {"NCCL_ALGO", "Ring"}, {"NCCL_PROTO", "Simple"}};
const Variables kShared = {
    {"NCCL_LAUNCH_ORDER_IMPLICIT", "1"}, {"NCCL_HOSTID", "annulus-rank-3"}, {"NCCL_P2P_DISABLE", "1"},
    {"NCCL_SHM_DISABLE", "1"},           {"NCCL_IB_DISABLE", "1"},          {"NCCL_NVLS_ENABLE", "0"},
    {"NCCL_SOCKET_IFNAME", "lo"}};

TEST(GpuEnvironment, IsWhatTheConfigurationWants) {
  EXPECT_EQ(set_by(decide({})), kAlways);
  EXPECT_EQ(set_by(decide({.deterministic = true})), kDeterministic);
  EXPECT_EQ(set_by(decide({.share_gpu = true})), kShared);
  Variables both = kDeterministic;
  both.insert(kShared.begin(), kShared.end());
  EXPECT_EQ(set_by(decide({.deterministic = true, .share_gpu = true})), both);
  EXPECT_NE(set_by(decide({.share_gpu = true}, {}, 1)).at("NCCL_HOSTID"),
            set_by(decide({.share_gpu = true}, {}, 2)).at("NCCL_HOSTID"));
  EXPECT_EQ(set_by(decide({.communication = GpuCommunication::staged, .share_gpu = true})), Variables{});
}

TEST(GpuEnvironment, TheUsersValuesAreKeptOrRefused) {
  EXPECT_EQ(set_by(decide({}, {{"NCCL_LAUNCH_ORDER_IMPLICIT", "1"}})), Variables{});
  EXPECT_EQ(set_by(decide({}, {{"NCCL_ALGO", "Tree"}})), kAlways);
  const GpuEnvironment kept = decide({.deterministic = true}, {{"NCCL_ALGO", "Tree"}});
  EXPECT_FALSE(set_by(kept).contains("NCCL_ALGO"));
  EXPECT_EQ(kept.remarks, std::vector<std::string>{"NCCL_ALGO=Tree is kept as the environment has it "
                                                   "(device.deterministic=true alone would set Ring)"});
  EXPECT_EQ(problems({.share_gpu = true}, {{"NCCL_P2P_DISABLE", "0"}, {"NCCL_NVLS_ENABLE", "1"}}),
            (std::vector<std::string>{
                "NCCL_P2P_DISABLE=0 in the environment contradicts device.share_gpu=true, which needs 1; unset it, or "
                "change the setting",
                "NCCL_NVLS_ENABLE=1 in the environment contradicts device.share_gpu=true, which needs 0; unset it, or "
                "change the setting"}));
}

TEST(GpuEnvironment, IsSet) {
  const char* const name = "ANNULUS_TEST_OF_ITS_ENVIRONMENT";
  apply(GpuEnvironment{{{name, "7"}}, {}});
  EXPECT_STREQ(std::getenv(name), "7");
  unsetenv(name);
}

}  // namespace
}  // namespace annulus
