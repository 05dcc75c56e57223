#include "launch/gpu_environment.h"

#include <fmt/format.h>

#include <cstdlib>

#include "runtime/core/error.h"

namespace annulus {
namespace {

struct Wish {
  std::string name, value;
  std::string why;        ///< the setting that wants it
  bool user_may = false;  ///< whether another value of the user's is as good
};

std::vector<Wish> wishes(const DeviceConfig& device, int rank) {
  // Collectives of several groups that a graph or several streams launch run in the order of the calls, on every rank.
  std::vector<Wish> all = {{"NCCL_LAUNCH_ORDER_IMPLICIT", "1", "device.kind=cuda"}};
  if (device.deterministic) {
    const std::string why = "device.deterministic=true";
    all.push_back({"NCCL_NVLS_ENABLE", "0", why});  // switches add in an order of their own
    all.push_back({"NCCL_ALGO", "Ring", why, true});
    all.push_back({"NCCL_PROTO", "Simple", why, true});
  }
  if (device.share_gpu) {
    const std::string why = "device.share_gpu=true";
    all.push_back({"NCCL_HOSTID", fmt::format("annulus-rank-{}", rank), why});  // or NCCL refuses the second rank
    for (const char* name : {"NCCL_P2P_DISABLE", "NCCL_SHM_DISABLE", "NCCL_IB_DISABLE"})
      all.push_back({name, "1", why});
    if (!device.deterministic) all.push_back({"NCCL_NVLS_ENABLE", "0", why});
    all.push_back({"NCCL_SOCKET_IFNAME", "lo", why, true});
  }
  return all;
}

}  // namespace

GpuEnvironment gpu_environment(const DeviceConfig& device, int rank, const EnvironmentLookup& user) {
  GpuEnvironment environment;
  if (device.communication == GpuCommunication::staged) return environment;  // NCCL is not started
  std::vector<std::string> problems;
  for (const Wish& wish : wishes(device, rank)) {
    const char* has = user(wish.name.c_str());
    if (has == nullptr) {
      environment.set.emplace_back(wish.name, wish.value);
    } else if (has == wish.value) {
      continue;
    } else if (wish.user_may) {
      environment.remarks.push_back(fmt::format("{}={} is kept as the environment has it ({} alone would set {})",
                                                wish.name, has, wish.why, wish.value));
    } else {
      problems.push_back(
          fmt::format("{}={} in the environment contradicts {}, which needs {}; unset it, or change the "
                      "setting",
                      wish.name, has, wish.why, wish.value));
    }
  }
  if (!problems.empty()) throw ConfigError(problems);
  return environment;
}

void apply(const GpuEnvironment& environment) {
  for (const auto& [name, value] : environment.set) setenv(name.c_str(), value.c_str(), 1);
}

}  // namespace annulus
