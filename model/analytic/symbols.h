#pragma once

#include <cstdint>

#include "parallel/layout.h"

namespace annulus {

/// The closed-form model of a training step: pure functions of `Symbols`, independent of the program, against which
/// programs and measurements are held. Its functions cite sections of docs/analytic-model.md.

enum class AttentionStorage : std::uint8_t {
  flash,        ///< keeps the log-sum-exp of every row
  materialised  ///< keeps the S x S weights of every head
};

enum class Recompute : std::uint8_t {
  none,
  selective,  ///< the attention core is computed again in the backward pass
  full        ///< whole layers are, from their input
};

enum class GatheredInput : std::uint8_t {
  kept,           ///< the input of a column-parallel product is stored whole on every rank
  gathered_again  ///< its shard is stored, and gathered again for the weight gradient
};

/// One step of one model on one mesh, in the letters of the analytic model. Sizes are global unless said otherwise.
struct Symbols {
  // The model.
  std::int64_t A = 1;             ///< attention heads
  std::int64_t G = 1;             ///< key and value heads
  std::int64_t H = 1;             ///< features of a head
  std::int64_t D = 1;             ///< hidden features; A H need not equal it
  std::int64_t F = 4;             ///< features inside the MLP
  std::int64_t L = 1;             ///< layers
  std::int64_t V = 1;             ///< vocabulary
  std::int64_t K = 0;             ///< learned positions; 0 for none (rotary)
  std::int64_t mlp_products = 2;  ///< n_mat: 2 plain, 3 gated
  std::int64_t norms = 2;         ///< per layer; 1 for a parallel block
  std::int64_t norm_vectors = 2;  ///< nu: 2 layer norm, 1 RMS norm
  bool tied_head = true;          ///< the head's weight is the embedding's
  bool qkv_bias = true;
  bool output_bias = true;  ///< of the attention's output product
  bool mlp_bias = true;
  bool head_bias = false;
  std::int64_t vocabulary_multiple = 128;  ///< rows of the embedding per tp rank are a multiple of it

  // The batch.
  std::int64_t B = 1;  ///< sequences of a micro-batch, on one data-parallel replica
  std::int64_t S = 1;  ///< tokens of a sequence
  std::int64_t m = 1;  ///< micro-batches of a step

  // The mesh.
  std::int64_t T = 1;  ///< tensor parallel
  std::int64_t R = 1;  ///< ring, or context, parallel
  std::int64_t W = 1;  ///< data-parallel replicas
  std::int64_t P = 1;  ///< pipeline stages
  RingLayout layout = RingLayout::zigzag;
  bool zero1 = false;                                         ///< ZeRO-1: optimizer state divided over W R ranks
  bool sequence_parallel = false;                             ///< SP: norms and residuals on rows sharded over tp
  GatheredInput layer_input = GatheredInput::gathered_again;  ///< of QKV and MLP, under SP
  GatheredInput head_input = GatheredInput::kept;             ///< of the head, under SP

  // Storage.
  AttentionStorage attention = AttentionStorage::flash;
  Recompute recompute = Recompute::none;
  std::int64_t p = 4;                   ///< bytes of an activation or weight
  std::int64_t p_gradient = 4;          ///< bytes of an accumulated gradient
  std::int64_t p_optimizer = 8;         ///< bytes of the optimizer's moments, per parameter
  std::int64_t p_master = 0;            ///< bytes of a master copy of a weight; 0 where the weight is its own
  std::int64_t p_travelling = 4;        ///< p_a: bytes of the dK and dV that travel round the ring
  std::int64_t p_statistic = 4;         ///< bytes of a row's statistic: log-sum-exp, mean, maximum
  std::int64_t dropout_mask_bytes = 0;  ///< delta: per element; 0 where masks come again from counters
  bool fused_epilogues = false;         ///< bias, residual and GELU end a product, or begin a norm
  std::int64_t mlp_stored = 2;          ///< c: tensors of F features kept per MLP: 2 GELU, 3 gated and fused, 4 gated

  // What follows.
  std::int64_t ranks() const { return T * R * W * P; }
  bool shards_optimizer() const { return zero1 && W * R > 1; }
  std::int64_t n() const { return S / R; }                      ///< tokens of a sequence on one rank
  std::int64_t b() const { return B * n(); }                    ///< tokens of a micro-batch on one rank
  std::int64_t q() const { return sequence_parallel ? T : 1; }  ///< ranks that share a row outside of products
  std::int64_t tk() const { return G < T ? G : T; }             ///< ranks that split the key and value heads ...
  std::int64_t tr() const { return T / tk(); }                  ///< ... and those that hold the same ones
  std::int64_t local_heads() const { return A / T; }
  std::int64_t local_kv_heads() const { return G / tk(); }
  std::int64_t local_ffn() const { return F / T; }
  /// V with padding: every tp rank's share is a multiple of `vocabulary_multiple`.
  std::int64_t padded_vocabulary() const {
    return (V + vocabulary_multiple * T - 1) / (vocabulary_multiple * T) * vocabulary_multiple * T;
  }
  std::int64_t global_sequences() const { return B * m * W; }
  std::int64_t tokens() const { return global_sequences() * S; }  ///< of a step
};

/// Throws ShapeError, naming the letters, where a count per rank would not be whole: heads, features, rows, sequence.
/// Every function of a rank's share calls it.
void check(const Symbols& symbols);

}  // namespace annulus
