#include "model/analytic/crossover.h"

#include <algorithm>
#include <cmath>

#include "model/analytic/flops.h"

namespace annulus {
namespace {

double real(std::int64_t count) { return static_cast<double>(count); }

double layer_weights(const Symbols& s) { return real(2 * s.D * (s.A + s.G) * s.H + s.mlp_products * s.D * s.F); }

/// (G / A) rate / bandwidth: the tokens per byte of the ring's conditions.
double ring_scale(const Symbols& s, double rate, double bandwidth) { return real(s.G) / real(s.A) * rate / bandwidth; }

}  // namespace

double tp_communication_ratio(const Symbols& s, double mean_keys, double rate, double bandwidth) {
  const double flops_per_token = 2 * layer_weights(s) + 4 * real(s.A * s.H) * mean_keys;
  return 4 * real(s.p * (s.T - 1) * s.D) * rate / (bandwidth * flops_per_token);
}

double tp_hidden_size_at_par(double tp, double activation_bytes, double expansion, double mean_keys, double rate,
                             double bandwidth) {
  return (activation_bytes * (tp - 1) * rate / bandwidth - mean_keys) / (2 + expansion);
}

double ring_tokens_to_hide_full_blocks(const Symbols& symbols, double rate, double bandwidth) {
  return real(symbols.p) / 2 * ring_scale(symbols, rate, bandwidth);
}

double ring_tokens_to_hide_half_blocks(const Symbols& symbols, double rate, double bandwidth) {
  return real(symbols.p) * ring_scale(symbols, rate, bandwidth);
}

double ring_tokens_to_hide_backward(const Symbols& symbols, double rate, double bandwidth) {
  return real(2 * symbols.p + 2 * symbols.p_travelling) / 5 * ring_scale(symbols, rate, bandwidth);
}

double ring_over_all_to_all_bytes(const Symbols& symbols) {
  return real(symbols.R * symbols.G) / real(symbols.A + symbols.G);
}

double dp_tokens_to_hide(const Symbols& symbols, double rate, double bandwidth) {
  return real(symbols.p_gradient) * rate / (4 * bandwidth);
}

double pipeline_transfer_ratio(const Symbols& s, double rate, double bandwidth) {
  return real(s.p * s.T) * rate / (real(s.q() * 24 * (s.L / s.P) * s.D) * bandwidth);
}

double pipeline_bubble(std::int64_t stages, std::int64_t virtual_stages, std::int64_t micro_batches) {
  return real(stages - 1) / real(virtual_stages * micro_batches);
}

double head_in_layers(const Symbols& symbols) { return real(symbols.D * symbols.V) / layer_weights(symbols); }

double ring_efficiency(RingLayout layout, std::int64_t ring_size, std::int64_t local_tokens) {
  const double even = attended_pairs(ring_size * local_tokens, AttentionCount::causal) / real(ring_size);
  return even / real(ring_makespan_pairs(layout, ring_size, local_tokens));
}

double contiguous_ring_time(std::int64_t ring_size, double hop) {
  if (ring_size == 1) return 0.5;
  return std::max(0.5, hop) + real(ring_size - 2) * std::max(1.0, hop) + 1;
}

double zigzag_ring_time(std::int64_t ring_size, double hop) { return real(ring_size - 1) * std::max(0.5, hop) + 0.5; }

double striped_over_zigzag_tiles(std::int64_t ring_size, std::int64_t tiles) {
  const double triangle = real(tiles * (tiles + 1)) / 2;
  const double half_square = real(tiles * tiles) / 2;
  return real(ring_size) * triangle / (triangle + real(ring_size - 1) * half_square);
}

double time_optimal_batch(double kappa, double sigma, double least_steps, double least_examples) {
  return std::sqrt(sigma * least_examples / (kappa * least_steps));
}

double least_training_seconds(double kappa, double sigma, double least_steps, double least_examples) {
  const double root = std::sqrt(kappa * least_examples) + std::sqrt(sigma * least_steps);
  return root * root;
}

}  // namespace annulus
