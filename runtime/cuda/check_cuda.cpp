#include <cuda_runtime.h>
#include <fmt/format.h>

#include <algorithm>

#include "runtime/core/error.h"
#include "runtime/cuda/check.h"
#include "runtime/cuda/requirements.h"

namespace annulus {

void check(int code, std::string_view what) {
  if (code == cudaSuccess) return;
  throw DeviceError(
      fmt::format("{}: CUDA error {}: {}", what, code, cudaGetErrorString(static_cast<cudaError_t>(code))));
}

void* allocate_on_gpu(std::int64_t bytes) {
  std::size_t free_bytes = 0, total_bytes = 0;
  check(cudaMemGetInfo(&free_bytes, &total_bytes), "the GPU's memory");
  const auto wanted = static_cast<std::size_t>(std::max<std::int64_t>(bytes, 1));
  void* memory = nullptr;
  const cudaError_t code = wanted > free_bytes ? cudaErrorMemoryAllocation : cudaMalloc(&memory, wanted);
  if (code == cudaErrorMemoryAllocation) {
    throw DeviceError(
        too_little_memory(bytes, static_cast<std::int64_t>(free_bytes), static_cast<std::int64_t>(total_bytes)));
  }
  check(code, fmt::format("{} bytes", bytes));
  return memory;
}

}  // namespace annulus
