#include "runtime/cuda/column_sums.h"
#include "runtime/cuda/dropout.h"
#include "runtime/cuda/elementwise.h"
#include "runtime/cuda/embed.h"
#include "runtime/cuda/kernels_of.cuh"
#include "runtime/cuda/optimizer.h"

namespace annulus {

ANNULUS_CUDA_KERNEL(Add)
ANNULUS_CUDA_KERNEL(Accumulate)
ANNULUS_CUDA_KERNEL(Cast)
ANNULUS_CUDA_KERNEL(Zero)
ANNULUS_CUDA_KERNEL(AddBias)
ANNULUS_CUDA_KERNEL(ColumnSum)
ANNULUS_CUDA_KERNEL(Gelu)
ANNULUS_CUDA_KERNEL(GeluGrad)
ANNULUS_CUDA_KERNEL(Slice)
ANNULUS_CUDA_KERNEL(Dropout)
ANNULUS_CUDA_KERNEL(Embed)
ANNULUS_CUDA_KERNEL(EmbedGrad)
ANNULUS_CUDA_KERNEL(SumSquares)
ANNULUS_CUDA_KERNEL(Clip)
ANNULUS_CUDA_KERNEL(AdamW)

}  // namespace annulus
