#include "runtime/cuda/attention_rows.h"
#include "runtime/cuda/block_context.cuh"

namespace annulus {

void enqueue(CUstream_st* stream, const FillOtherRows& rows) { launch_rows(CudaLauncher(stream), rows); }
void enqueue(CUstream_st* stream, const PackLogSumExp& rows) { launch_rows(CudaLauncher(stream), rows); }
void enqueue(CUstream_st* stream, const AddPackedRows& rows) { launch_rows(CudaLauncher(stream), rows); }
void enqueue(CUstream_st* stream, const MergePackedRows& rows) { launch_rows(CudaLauncher(stream), rows); }

}  // namespace annulus
