#include <cuda_runtime.h>
#include <fmt/format.h>

#include "runtime/core/error.h"
#include "runtime/cuda/check.h"

namespace annulus {

void check(int code, std::string_view what) {
  if (code == cudaSuccess) return;
  throw DeviceError(
      fmt::format("{}: CUDA error {}: {}", what, code, cudaGetErrorString(static_cast<cudaError_t>(code))));
}

}  // namespace annulus
