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

/// Forward: out is of q's type where one step does it all, else f32, as results that are merged must be.
inline AttentionTask ring_task(AttentionDirection direction, const TaskSizes& sizes, int ring_size, int step,
                               std::span<const AttentionBlock> blocks, AttentionType storage = AttentionType::bf16) {
  const AttentionType sums = ring_size == 1 ? storage : AttentionType::f32;
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
          .lse = AttentionType::f32,
          .query_grad = backward ? sums : AttentionType::other,
          .kv_grad = backward ? storage : AttentionType::other};
}

}  // namespace annulus::testing
