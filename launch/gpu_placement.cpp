#include "launch/gpu_placement.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>

#include "runtime/core/error.h"

namespace annulus {
namespace {

using Users = std::map<std::pair<std::string, CudaGpu::Id>, std::vector<int>>;  // of a host's GPU: ranks

std::string counted(std::size_t count, const char* what) {
  return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
}

/// Where a GPU of this host has several ranks, what is wrong.
std::string shared_on(const std::string& host, const std::vector<RankGpus>& ranks, const Users& users) {
  std::size_t on_host = 0;
  std::set<CudaGpu::Id> gpus;
  for (const RankGpus& rank : ranks) {
    if (rank.host != host) continue;
    ++on_host;
    gpus.insert(rank.visible.begin(), rank.visible.end());
  }
  for (const auto& [gpu, ranks_of_gpu] : users) {
    if (gpu.first != host || ranks_of_gpu.size() < 2) continue;
    const std::string who = fmt::format("{} on {}: ranks {} would share one GPU", counted(on_host, "rank"), host,
                                        fmt::join(ranks_of_gpu, " and "));
    if (gpus.size() >= on_host) {
      return fmt::format(
          "{}, since each sees only some of the host's {} (CUDA_VISIBLE_DEVICES); let all ranks see all of them, or "
          "each another",
          who, gpus.size());
    }
    return fmt::format(
        "{}, of which {} {} visible; start {} there (mpirun --map-by ppr:{}:node), or, to test, set "
        "device.share_gpu=true",
        who, gpus.size(), gpus.size() == 1 ? "is" : "are", counted(gpus.size(), "rank"), gpus.size());
  }
  return "";
}

}  // namespace

std::vector<GpuPlace> place_on_gpus(const std::vector<RankGpus>& ranks, GpuSharing sharing) {
  Users users;
  std::vector<GpuPlace> places(ranks.size());
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    const auto& [host, visible] = ranks[rank];
    const auto load = [&, &of = host](const CudaGpu::Id& gpu) { return users[{of, gpu}].size(); };
    const auto least = std::min_element(visible.begin(), visible.end(),
                                        [&](const auto& one, const auto& other) { return load(one) < load(other); });
    if (least == visible.end()) throw ConfigError(fmt::format("rank {} on {} sees no GPU", rank, host));
    places[rank].ordinal = static_cast<int>(least - visible.begin());
    users[{host, *least}].push_back(static_cast<int>(rank));
  }
  for (std::size_t rank = 0; rank < ranks.size(); ++rank)
    places[rank].ranks = users[{ranks[rank].host, ranks[rank].visible[static_cast<std::size_t>(places[rank].ordinal)]}];
  if (sharing == GpuSharing::allowed) return places;

  std::vector<std::string> problems;
  std::set<std::string> seen;
  for (const RankGpus& rank : ranks) {
    if (!seen.insert(rank.host).second) continue;
    if (std::string problem = shared_on(rank.host, ranks, users); !problem.empty())
      problems.push_back(std::move(problem));
  }
  if (!problems.empty()) throw ConfigError(problems);
  return places;
}

}  // namespace annulus
