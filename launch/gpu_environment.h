#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "launch/run_config.h"

namespace annulus {

/// The value of an environment variable, or null.
using EnvironmentLookup = std::function<const char*(const char* name)>;

/// What NCCL is told by its environment, before it starts.
struct GpuEnvironment {
  std::vector<std::pair<std::string, std::string>> set;
  std::vector<std::string> remarks;  ///< a line for each value of the user's that is kept in place of ours
};

/// For rank `rank` of a job. Throws ConfigError where the user has set what contradicts the configuration.
GpuEnvironment gpu_environment(const DeviceConfig& device, int rank, const EnvironmentLookup& user);

/// Sets what `gpu_environment` has decided on in this process.
void apply(const GpuEnvironment& environment);

}  // namespace annulus
