#pragma once

#include <string>
#include <vector>

#include "runtime/cuda/device.h"

namespace annulus {

/// A rank, where it runs, and which GPUs it sees there, by ordinal. Ranks of a host may see different ones
/// (CUDA_VISIBLE_DEVICES, Slurm).
struct RankGpus {
  std::string host;
  std::vector<CudaGpu::Id> visible;
};

/// A rank's GPU.
struct GpuPlace {
  int ordinal = 0;         ///< among those that the rank sees
  std::vector<int> ranks;  ///< that have this GPU, itself included; ascending
  bool operator==(const GpuPlace&) const = default;
};

enum class GpuSharing : std::uint8_t { refused, allowed };

/// Gives each rank a GPU: of those it sees, the first that the fewest lower ranks have. Throws ConfigError, with each
/// host that has too few, where ranks would share one and may not.
std::vector<GpuPlace> place_on_gpus(const std::vector<RankGpus>& ranks, GpuSharing sharing);

}  // namespace annulus
