#include "runtime/cuda/attention_backward.h"
#include "runtime/cuda/attention_forward.h"
#include "runtime/cuda/kernels_of.cuh"

namespace annulus {

ANNULUS_CUDA_KERNEL(AttentionStep)
ANNULUS_CUDA_KERNEL(AttentionStepGrad)

}  // namespace annulus
