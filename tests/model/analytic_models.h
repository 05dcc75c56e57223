#pragma once

#include "model/analytic/symbols.h"

namespace annulus::published {

/// GPT-2 as released by its authors: `layers` layers, `heads` heads of 64.
inline Symbols gpt2(std::int64_t layers, std::int64_t heads) {
  Symbols s;
  s.A = s.G = heads;
  s.H = 64;
  s.D = heads * 64;
  s.F = 4 * s.D;
  s.L = layers;
  s.V = 50257;
  s.K = 1024;
  s.S = 1024;
  return s;
}

/// A Llama-like model: RMS norms, gated MLP, rotary positions, untied head, no biases.
inline Symbols llama(std::int64_t D, std::int64_t A, std::int64_t G, std::int64_t F, std::int64_t L, std::int64_t V) {
  Symbols s;
  s.A = A;
  s.G = G;
  s.H = D / A;
  s.D = D;
  s.F = F;
  s.L = L;
  s.V = V;
  s.mlp_products = 3;
  s.norm_vectors = 1;
  s.tied_head = s.qkv_bias = s.output_bias = s.mlp_bias = false;
  s.S = 8192;
  s.p = 2;
  s.mlp_stored = 3;
  return s;
}

/// A row of Korthikanti et al., arXiv:2205.05198, table 3: S = 2048, V = 51200, T = 8, half precision, dropout masks.
struct Korthikanti {
  const char* name;
  std::int64_t A, D, L, P, v, global_sequences, B;

  std::int64_t gpus() const { return 8 * P; }
  /// The whole model on one stage; the published memory divides the layers by P.
  Symbols symbols() const {
    Symbols s;
    s.A = s.G = A;
    s.H = D / A;
    s.D = D;
    s.F = 4 * D;
    s.L = L;
    s.V = 51200;
    s.K = s.S = 2048;
    s.B = B;
    s.m = global_sequences / B;
    s.T = 8;
    s.p = 2;
    s.p_gradient = 4;
    s.p_master = 4;
    s.dropout_mask_bytes = 1;
    s.attention = AttentionStorage::materialised;
    return s;
  }
};

inline constexpr Korthikanti kKorthikanti[] = {{"22B", 64, 6144, 48, 1, 1, 4, 4},
                                               {"175B", 96, 12288, 96, 8, 3, 64, 1},
                                               {"530B", 128, 20480, 105, 35, 3, 280, 1},
                                               {"1T", 160, 25600, 128, 64, 1, 512, 1}};

}  // namespace annulus::published
