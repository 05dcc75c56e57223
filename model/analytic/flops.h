#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/analytic/symbols.h"

namespace annulus {

/// Two FLOPs per multiply-add. Norms, activations, softmax and the optimizer count as bytes, not as FLOPs (section 2).

/// What counts as attention's work, in utilisations.
enum class AttentionCount : std::uint8_t {
  full,   ///< S^2 pairs per head
  causal  ///< S (S + 1) / 2: what a causal kernel must do
};

/// Query-key pairs that one head attends to in a sequence of `length` tokens. Section 2.
double attended_pairs(std::int64_t length, AttentionCount count);

/// Query-key pairs of one head and one sequence in one ring step. Section 8's table; under zig-zag, n must be even
/// where R > 1. `query_rank` = `key_rank` is a rank's own block.
std::int64_t ring_step_pairs(RingLayout layout, std::int64_t local_tokens, std::int64_t query_rank,
                             std::int64_t key_rank);
/// The sum over a rank's R ring steps. Section 8's table.
std::int64_t ring_rank_pairs(RingLayout layout, std::int64_t ring_size, std::int64_t local_tokens, std::int64_t rank);
/// The sum over ring steps of the largest number of pairs on any rank: the time of a ring in lockstep. Section 8's
/// table.
std::int64_t ring_makespan_pairs(RingLayout layout, std::int64_t ring_size, std::int64_t local_tokens);

/// One kind of matrix product on one rank: m n k of each call, and calls of a whole step.
struct ProductItem {
  std::string name;
  std::int64_t flops = 0;          ///< 2 m n k of one call
  std::int64_t largest = 0;        ///< elements of the largest of its matrices, m k, k n and m n
  std::int64_t weights = 0;        ///< elements of the weights, or of their gradient
  std::int64_t forward_calls = 0;  ///< in a step
  std::int64_t backward_calls = 0;
};

/// The matrix products of a step on one rank (attention's are not among them); P = 1. Exact: padded head columns and
/// replicated kv heads included. Full recomputation adds a layer's forward calls to the backward pass. Section 2.
std::vector<ProductItem> product_items(const Symbols& symbols);
/// FLOPs of all products of a step on one rank.
std::int64_t product_flops(const Symbols& symbols);

/// Pairs that the attention of a rank (at `ring_rank` of its ring) visits in a step, over all of its heads, sequences,
/// layers and micro-batches: once forward, once more where the core is recomputed, and as often in the backward pass.
struct AttentionPairs {
  std::int64_t forward = 0;
  std::int64_t backward = 0;
};
AttentionPairs attention_pairs(const Symbols& symbols, std::int64_t ring_rank);

/// FLOPs per pair and head feature: 4 forward (q k^T, weights v); backward 8, or 10 where the flash kernel computes
/// q k^T once more (errata C-5).
std::int64_t attention_forward_flops(const Symbols& symbols, std::int64_t pairs);
std::int64_t attention_backward_flops(const Symbols& symbols, std::int64_t pairs);

/// FLOPs of a step on one rank: products and attention as executed, flash's recomputation included.
std::int64_t executed_flops(const Symbols& symbols, std::int64_t ring_rank);

/// FLOPs of one forward pass of the whole model over the global batch: a layer's products, its attention, the head.
struct ForwardFlops {
  double layer_products = 0;   ///< of all layers
  double layer_attention = 0;  ///< of all layers
  double head = 0;
};
ForwardFlops forward_flops(const Symbols& symbols, AttentionCount count);

/// Model FLOPs of a step, C_model: three times forward, unpadded, on all ranks together. Section 2; the notes' (4.2),
/// corrected (the head, and the causal count).
double model_flops(const Symbols& symbols, AttentionCount count);
/// 6 N tokens, N as in parameters_in_products.
double model_flops_6n(const Symbols& symbols);
/// Model FLOPs plus what `recompute` repeats. Section 2; selective adds 4 B L S^2 D, not Korthikanti's 12.
double hardware_flops(const Symbols& symbols, AttentionCount count);

/// Fraction of `ranks` peaks that `flops` in `seconds` amount to: MFU of model FLOPs, HFU of hardware FLOPs.
/// Section 10; the notes' (5.4), corrected (errata E-5.4: it was inverted).
double utilisation(double flops, double seconds, std::int64_t ranks, double peak_flops_per_second);

/// Seconds of a whole training on `training_tokens`: 6 N per token, at the utilisation counted with 6 N. Section 11.
double training_seconds(const Symbols& symbols, double training_tokens, double peak_flops_per_second, double mfu_6n);

}  // namespace annulus
