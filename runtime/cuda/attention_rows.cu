#include "runtime/cuda/attention_rows.h"
#include "runtime/cuda/block_context.cuh"

namespace annulus {

template <class Rows>
void enqueue(CUstream_st* stream, const Rows& rows) {
  launch_rows(CudaLauncher(stream), rows);
}

template void enqueue(CUstream_st*, const FillOtherRows&);
template void enqueue(CUstream_st*, const PackLogSumExp&);
#define ANNULUS_STORED(T)                                         \
  template void enqueue(CUstream_st*, const WidenPackedRows<T>&); \
  template void enqueue(CUstream_st*, const AddPackedRows<T>&);   \
  template void enqueue(CUstream_st*, const MergePackedRows<T>&);
ANNULUS_STORED(BFloat16)
ANNULUS_STORED(Float16)
#undef ANNULUS_STORED

}  // namespace annulus
