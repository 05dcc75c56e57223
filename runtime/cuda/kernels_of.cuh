#pragma once

#include "runtime/cuda/block_context.cuh"
#include "runtime/cuda/kernels.h"

/// Defines `run_kernel` of a kind by its `launch`.
#define ANNULUS_CUDA_KERNEL(type)                                                          \
  void run_kernel(const type& op, const KernelArguments& arguments, CUstream_st* stream) { \
    launch(op, arguments, CudaLauncher(stream));                                           \
  }
