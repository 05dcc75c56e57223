#include <cublasLt.h>
#include <cuda_runtime.h>
#include <cudnn.h>
#include <fmt/format.h>

#include "runtime/cuda/device.h"

namespace annulus {
namespace {

/// Of a number that counts thousands, or ten thousands, as these libraries do.
std::string version(std::size_t number, std::size_t major, std::size_t minor) {
  return fmt::format("{}.{}.{}", number / major, number % major / minor, number % minor);
}

}  // namespace

std::vector<std::pair<std::string, std::string>> cuda_versions() {
  int runtime = 0, driver = 0;
  cudaRuntimeGetVersion(&runtime);
  cudaDriverGetVersion(&driver);
  const auto cuda = [](int number) { return fmt::format("{}.{}", number / 1000, number % 1000 / 10); };
  return {{"CUDA", cuda(runtime)},
          {"NVIDIA driver", driver == 0 ? "none" : "for CUDA up to " + cuda(driver)},
          {"cuBLASLt", version(cublasLtGetVersion(), 10000, 100)},
          {"cuDNN", version(cudnnGetVersion(), 10000, 100)}};
}

}  // namespace annulus
