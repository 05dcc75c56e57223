#pragma once

#include <string>
#include <vector>

#include "parallel/layout.h"
#include "runtime/cuda/cudnn_plan.h"

namespace annulus::testing {

inline constexpr RingLayout kLayouts[] = {RingLayout::contiguous, RingLayout::striped, RingLayout::zigzag};
inline constexpr CudnnLimits kHopper{.compute_capability = 90};

/// Sizes of attention on one rank; `sequence` is that of the whole ring.
struct TaskSizes {
  std::int64_t sequences, heads, kv_heads, head_dim, sequence;
};

/// As programs type a ring's steps: what is added to later is f32, and so are shares of dk and dv that travel.
inline AttentionTask ring_task(AttentionDirection direction, const TaskSizes& sizes, int ring_size, int step,
                               const std::vector<AttentionBlock>& blocks, DType storage = DType::bf16) {
  const DType sums = step + 1 == ring_size ? storage : DType::f32;
  const bool backward = direction == AttentionDirection::backward;
  return {.direction = direction,
          .blocks = blocks,
          .first = step == 0,
          .dropout_rate = 0,
          .sequences = sizes.sequences,
          .heads = sizes.heads,
          .kv_heads = sizes.kv_heads,
          .head_dim = sizes.head_dim,
          .queries = sizes.sequence / ring_size,
          .keys = sizes.sequence / ring_size,
          .storage = storage,
          .out = backward ? storage : sums,
          .lse = DType::f32,
          .query_grad = backward ? sums : DType::f32,
          .kv_grad = backward && ring_size == 1 ? storage : DType::f32};
}

}  // namespace annulus::testing
