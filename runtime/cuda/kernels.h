#pragma once

#include "runtime/execute/kernel.h"
#include "runtime/ops/op_table.h"

/// Like cudaStream_t, without CUDA's headers.
struct CUstream_st;

namespace annulus {

/// Every compute kind but the product (matmul.h): puts the op's kernels on the stream. Each kind's file is
/// kernels_*.cu. Throws DeviceError.
#define ANNULUS_KIND(enumerator, type) \
  void run_kernel(const type& op, const KernelArguments& arguments, CUstream_st* stream);
ANNULUS_COMPUTE_KINDS(ANNULUS_KIND)
#undef ANNULUS_KIND

}  // namespace annulus
