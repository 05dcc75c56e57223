#include "launch/build_info.h"

#include <fmt/format.h>
#include <oneapi/dnnl/dnnl.h>

#include <CLI/Version.hpp>
#include <nlohmann/json.hpp>

#include "collectives/mpi_runtime.h"
#include "launch/cuda_rank_device.h"

namespace annulus {

// Written by cmake/commit.cmake at every build.
extern const char* const kCommit;

std::vector<std::pair<std::string, std::string>> build_info() {
  const dnnl_version_t* dnnl = dnnl_version();
  std::vector<std::pair<std::string, std::string>> info = {
      {"annulus", ANNULUS_VERSION},
      {"commit", kCommit},
      {"compiler", ANNULUS_COMPILER},
      {"build", ANNULUS_BUILD},
      {"MPI", MpiRuntime::library_version()},
      {"oneDNN", fmt::format("{}.{}.{}", dnnl->major, dnnl->minor, dnnl->patch)},
      {"fmt", fmt::format("{}.{}.{}", FMT_VERSION / 10000, FMT_VERSION / 100 % 100, FMT_VERSION % 100)},
      {"nlohmann_json",
       fmt::format("{}.{}.{}", NLOHMANN_JSON_VERSION_MAJOR, NLOHMANN_JSON_VERSION_MINOR, NLOHMANN_JSON_VERSION_PATCH)},
      {"CLI11", CLI11_VERSION},
  };
  const auto gpu_libraries = gpu_library_versions();
  info.insert(info.end(), gpu_libraries.begin(), gpu_libraries.end());
  return info;
}

}  // namespace annulus
