#include "runtime/cuda/cross_entropy.h"
#include "runtime/cuda/kernels_of.cuh"
#include "runtime/cuda/layer_norm.h"

namespace annulus {

ANNULUS_CUDA_KERNEL(LayerNorm)
ANNULUS_CUDA_KERNEL(LayerNormGrad)
ANNULUS_CUDA_KERNEL(ResidualNorm)
ANNULUS_CUDA_KERNEL(RowMax)
ANNULUS_CUDA_KERNEL(RowSumExp)
ANNULUS_CUDA_KERNEL(RowTarget)
ANNULUS_CUDA_KERNEL(RowSoftmax)
ANNULUS_CUDA_KERNEL(Nll)
ANNULUS_CUDA_KERNEL(NllGrad)

}  // namespace annulus
