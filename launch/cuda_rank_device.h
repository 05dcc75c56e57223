#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "launch/rank_device.h"

namespace annulus {

/// A GPU of this host and NCCL, or what the configuration has in NCCL's place. Collective; throws AgreedConfigError
/// where a rank cannot have one, and always in a build without CUDA.
std::unique_ptr<RankDevice> make_cuda_rank_device(Process& process, const RunConfig& config);

/// Names and versions of the libraries of GPUs that this build has; none in one without CUDA.
std::vector<std::pair<std::string, std::string>> gpu_library_versions();

}  // namespace annulus
