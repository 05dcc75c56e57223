#pragma once

#include <cstdint>

#include "runtime/ops/elementwise.h"

namespace annulus {

struct DropoutConfig {
  double embedding = 0, attention = 0, residual = 0;
};

/// Sizes of a GPT-2-like decoder. Shape letters in parentheses, as in the analytic model. 0 stands for the usual
/// choice, which `resolve` fills in.
struct ModelConfig {
  std::int64_t layers = 12;     ///< L
  std::int64_t hidden = 768;    ///< D
  std::int64_t heads = 12;      ///< A
  std::int64_t kv_heads = 0;    ///< G; 0: heads
  std::int64_t head_dim = 0;    ///< H; 0: hidden / heads
  std::int64_t ffn = 0;         ///< F; 0: 4 hidden
  std::int64_t vocabulary = 0;  ///< V; 0: the data's
  std::int64_t vocabulary_padding = 128;
  std::int64_t block_size = 0;  ///< K, learned positions; 0: the sequence length
  Activation activation = Activation::gelu_tanh;
  double layer_norm_epsilon = 1e-5;
  double initial_std = 0.02;
  DropoutConfig dropout;
};

}  // namespace annulus
