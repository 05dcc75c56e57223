#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "runtime/core/error.h"
#include "runtime/cuda/block.h"

namespace annulus {

/// The hardware's block.
struct CudaBlock {
  __device__ int thread() const { return static_cast<int>(threadIdx.x); }
  __device__ int threads() const { return static_cast<int>(blockDim.x); }
  __device__ std::int64_t index() const { return blockIdx.x; }
  __device__ void sync() const { __syncthreads(); }
  template <class T>
  __device__ T shuffle_xor(T value, int lanes) const {
    return __shfl_xor_sync(0xFFFFFFFFu, value, lanes);
  }
  __device__ std::byte* shared() const {
    extern __shared__ __align__(16) std::byte memory[];
    return memory;
  }
  __device__ void count_pairs(std::int64_t) const {}
};

template <class Body>
__global__ void __launch_bounds__(kThreads, 1) run_body(const __grid_constant__ Body body) {
  CudaBlock block;
  body(block);
}

/// Puts bodies on a stream. Throws DeviceError.
class CudaLauncher {
 public:
  explicit CudaLauncher(cudaStream_t stream) : stream_(stream) {}

  template <class Body>
  void operator()(const Grid& grid, const Body& body) const {
    if (grid.blocks == 0) return;
    constexpr std::int64_t kUnasked = 48 * 1024;  // shared memory that a kernel may have without asking
    if (grid.shared_bytes > kUnasked) {
      const cudaError_t code = cudaFuncSetAttribute(run_body<Body>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                    static_cast<int>(grid.shared_bytes));
      if (code != cudaSuccess)
        throw DeviceError("a kernel needs " + std::to_string(grid.shared_bytes) +
                          " bytes of shared memory, more than this GPU's blocks have; use narrower layers or heads");
    }
    if (grid.blocks > 0x7FFFFFFF) throw DeviceError("a grid of " + std::to_string(grid.blocks) + " blocks");
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(grid.blocks));
    config.blockDim = dim3(static_cast<unsigned>(grid.threads));
    config.dynamicSmemBytes = static_cast<std::size_t>(grid.shared_bytes);
    config.stream = stream_;
    // Tells of this launch alone: the thread's last error may be an old one.
    check(cudaLaunchKernelEx(&config, run_body<Body>, body));
  }

  /// Blocks of kThreads threads that the device runs at a time, where they need no more than 32 registers a thread.
  std::int64_t blocks_at_once() const {
    int device = 0, multiprocessors = 0, threads = 0;
    check(cudaGetDevice(&device));
    check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device));
    check(cudaDeviceGetAttribute(&threads, cudaDevAttrMaxThreadsPerMultiProcessor, device));
    return std::int64_t{multiprocessors} * (threads / kThreads);
  }

 private:
  static void check(cudaError_t code) {
    if (code != cudaSuccess)
      throw DeviceError(std::string("a kernel could not be launched: ") + cudaGetErrorString(code));
  }

  cudaStream_t stream_;
};

}  // namespace annulus
