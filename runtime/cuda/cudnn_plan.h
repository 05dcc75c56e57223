#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/cuda/determinism.h"
#include "runtime/ops/attention.h"

namespace annulus {

enum class AttentionDirection : std::uint8_t { forward, backward };

/// What a device is asked to do for one attention step, forward or backward.
struct AttentionTask {
  AttentionDirection direction = AttentionDirection::forward;
  std::vector<AttentionBlock> blocks;
  bool first = true;  ///< there is no earlier result
  double dropout_rate = 0;
  std::int64_t sequences = 0, heads = 0, kv_heads = 0, head_dim = 0;
  std::int64_t queries = 0, keys = 0;  ///< positions of a sequence that q, and kv, hold
  DType storage = DType::f32;          ///< of q, k, v and dout
  DType out = DType::f32, lse = DType::f32;
  DType query_grad = DType::f32, kv_grad = DType::f32;  ///< backward
  DType earlier = DType::f32;                           ///< of what earlier steps found: out, or dq

  bool operator==(const AttentionTask&) const = default;
};

AttentionTask task_of(const AttentionStep& op, OpDefinition::Types inputs, OpDefinition::Types outputs);
AttentionTask task_of(const AttentionStepGrad& op, OpDefinition::Types inputs, OpDefinition::Types outputs);

/// One graph of cuDNN's: attention of `queries` rows on `keys` rows of every sequence. Pointers lead to the first row
/// of each; strides follow from the rest.
struct CudnnGraphKey {
  enum class Mask : std::uint8_t {
    full,         ///< all keys
    causal,       ///< as many keys as queries; row i sees keys 0 to i
    bottom_right  ///< more keys than queries; the last row sees all of them, and each row one more than that before it
  };
  enum class Results : std::uint8_t {
    in_place,  ///< out and lse, or dq, have the op's own strides
    packed     ///< f32 [sequences, queries, heads, head_dim] in the workspace: to be merged, or added, by us
  };

  AttentionDirection direction;
  Mask mask;
  Results results;
  Results key_results;  ///< of dk and dv; packed: halves [sequences, keys, 2, kv_heads, head_dim], to be widened by us
  Determinism determinism;
  DType storage, out, query_grad, kv_grad;
  std::int64_t sequences, heads, kv_heads, head_dim, queries, keys;
  std::int64_t query_positions, key_positions;  ///< rows from one sequence to the next

  auto operator<=>(const CudnnGraphKey&) const = default;

  /// Keys that row `i` sees, from 0 on.
  std::int64_t visible_keys(std::int64_t i) const { return mask == Mask::full ? keys : keys - queries + i + 1; }
  /// Query-key pairs, of all sequences and heads.
  std::int64_t pairs() const {
    return sequences * heads * queries * (mask == Mask::full ? 2 * keys : 2 * keys - queries + 1) / 2;
  }
};

/// How cuDNN does a task. Rows of the task outside of the graph's are written by us: out 0, lse -infinity, gradients 0.
struct CudnnPlan {
  std::string refusal;                 ///< why cuDNN cannot do it; empty where it can
  std::optional<CudnnGraphKey> graph;  ///< nothing where no query sees a key
  std::int64_t query_begin = 0, key_begin = 0;
};

inline constexpr std::int64_t kCudnnWorkspaceAlignment = 256;  ///< cuDNN's wish

/// What plans depend on besides the task.
struct CudnnLimits {
  int compute_capability = 0;                  ///< 10 major + minor, as in 90
  Determinism determinism = Determinism::any;  ///< bitwise: backward, too, sums in a fixed order
  std::int64_t workspace_bytes = std::int64_t{1}
                                 << 32;  ///< cuDNN may want that much, and is refused where it wants more
};

/// Never throws: what cuDNN does not do, or not within the limits, is a refusal, and another kernel's work.
/// The blocks must form one staircase of visible keys: so they do for every layout of the ring and every step of it
/// (tests/cudnn/cudnn_plan_test.cpp).
CudnnPlan plan_cudnn(const AttentionTask& task, const CudnnLimits& limits);

/// What cuDNN's own workspace takes where no device is there to be asked: of the backward, the fp32 sums of dq, or, in
/// a fixed order, 2 bytes a score; for grouped queries dk and dv of every query head.
std::int64_t estimated_workspace_bytes(const CudnnGraphKey& graph);

}  // namespace annulus
