#include <gtest/gtest.h>

#include <cmath>

#include "model/analytic/crossover.h"
#include "tests/model/analytic_models.h"

namespace annulus {
namespace {

// An H100 (989 TFLOP/s, 370 GB/s of NVLink, 45 GB/s per network interface) and the rates its products reach.
constexpr double kH100 = 989e12, kNvLink = 370e9, kNetwork = 45e9;
constexpr double kAttentionRate = 540e12;

TEST(AnalyticCrossover, TensorParallelism) {
  // Section 10: the hidden size at which communication equals compute.
  EXPECT_NEAR(tp_hidden_size_at_par(8, 2, 4, 0, 0.65 * kH100, kNvLink), 4054, 1);
  EXPECT_NEAR(tp_hidden_size_at_par(16, 2, 4, 0, 0.65 * kH100, kNetwork), 7e4, 2e3);  // never across the network
  const double a100_rate = 0.75 * 312e12, a100_link = 230e9;
  EXPECT_NEAR(tp_hidden_size_at_par(8, 2, 4, 0, a100_rate, a100_link), 2374, 1);
  EXPECT_NEAR(tp_hidden_size_at_par(8, 2, 4, 4096, a100_rate, a100_link), 1691, 1);
}

TEST(AnalyticCrossover, RatioIsOneAtPar) {
  Symbols s = published::kKorthikanti[0].symbols();
  const double hidden = tp_hidden_size_at_par(8, 2, 4, 1000, 6e14, 3e11);
  s.D = static_cast<std::int64_t>(std::round(hidden / 64)) * 64;
  s.A = s.G = 64;
  s.H = s.D / 64;
  s.F = 4 * s.D;
  EXPECT_NEAR(tp_communication_ratio(s, 1000, 6e14, 3e11), 1, 0.02);
  // The plain form: p (T - 1) rate / (bandwidth ((2 + E) D + S)).
  const double plain = 2.0 * 7 * 6e14 / (3e11 * (6 * static_cast<double>(s.D) + 1000));
  EXPECT_NEAR(tp_communication_ratio(s, 1000, 6e14, 3e11) / plain, 1, 1e-12);
}

TEST(AnalyticCrossover, RingHidesBehindAttention) {
  Symbols s = published::llama(4096, 32, 32, 11008, 32, 32000);
  EXPECT_NEAR(ring_tokens_to_hide_half_blocks(s, kAttentionRate, kNvLink), 2.9e3, 50);
  EXPECT_NEAR(ring_tokens_to_hide_backward(s, kAttentionRate, kNvLink), 3.5e3, 50);
  EXPECT_NEAR(ring_tokens_to_hide_half_blocks(s, kAttentionRate, kNetwork), 24e3, 500);
  EXPECT_NEAR(ring_tokens_to_hide_backward(s, kAttentionRate, kNetwork), 29e3, 500);
  EXPECT_DOUBLE_EQ(ring_tokens_to_hide_full_blocks(s, 312e12, 300e9), 1040);  // Ring Attention's table 2: 1.0 k, A100
  EXPECT_NEAR(ring_tokens_to_hide_full_blocks(s, 312e12, 12.5e9), 24.5e3, 0.5e3);  // over InfiniBand
  s.G = 4;                                                                         // A / 8
  EXPECT_NEAR(ring_tokens_to_hide_half_blocks(s, kAttentionRate, kNvLink), 370, 6);
  EXPECT_NEAR(ring_tokens_to_hide_backward(s, kAttentionRate, kNvLink), 440, 6);
}

TEST(AnalyticCrossover, RingAgainstAllToAll) {
  Symbols s = published::llama(4096, 32, 32, 11008, 32, 32000);
  s.R = 8;
  EXPECT_DOUBLE_EQ(ring_over_all_to_all_bytes(s), 4);  // R / 2
  s.G = 4;
  EXPECT_DOUBLE_EQ(ring_over_all_to_all_bytes(s), 8.0 / 9);  // R / 9
}

TEST(AnalyticCrossover, DataParallelReductionHides) {
  Symbols s;
  const double rate = 0.45 * kH100;
  EXPECT_NEAR(dp_tokens_to_hide(s, rate, kNetwork), 9.9e3, 50);
  EXPECT_NEAR(dp_tokens_to_hide(s, rate, 8 * kNetwork), 1.2e3, 50);
  s.p_gradient = 2;
  EXPECT_NEAR(dp_tokens_to_hide(s, rate, kNetwork), 4.9e3, 50);
}

TEST(AnalyticCrossover, Pipeline) {
  EXPECT_DOUBLE_EQ(pipeline_bubble(8, 1, 64), 7.0 / 64);
  EXPECT_DOUBLE_EQ(pipeline_bubble(8, 3, 64), 7.0 / 192);
  EXPECT_EQ(pipeline_bubble(1, 1, 4), 0);
  Symbols s = published::kKorthikanti[1].symbols();
  s.P = 8;  // 12 layers of D = 12288 per stage
  s.sequence_parallel = true;
  EXPECT_NEAR(pipeline_transfer_ratio(s, 0.6 * kH100, kNetwork), 0.0075, 0.0001);
  EXPECT_NEAR(head_in_layers(published::llama(4096, 32, 8, 14336, 32, 128256)), 2.41, 0.005);
  EXPECT_NEAR(head_in_layers(published::llama(8192, 64, 8, 28672, 80, 128256)), 1.23, 0.005);
  EXPECT_NEAR(head_in_layers(published::kKorthikanti[1].symbols()), 0.34, 0.01);
}

TEST(AnalyticCrossover, RingEfficiency) {
  EXPECT_NEAR(ring_efficiency(RingLayout::contiguous, 8, 8192), 0.533, 0.0005);
  EXPECT_DOUBLE_EQ(ring_efficiency(RingLayout::zigzag, 8, 8192), 1);
  EXPECT_NEAR(ring_efficiency(RingLayout::striped, 8, 8192), 1, 2e-4);
  // Both approach 2 - 1 / R over contiguous.
  const double speedups[] = {1.5, 1.75, 1.875, 1.9375};
  for (int i = 0; i < 4; ++i) {
    const std::int64_t ring = std::int64_t{2} << i;
    const double contiguous = ring_efficiency(RingLayout::contiguous, ring, 1 << 20);
    EXPECT_NEAR(ring_efficiency(RingLayout::zigzag, ring, 1 << 20) / contiguous, speedups[i], 1e-5);
    EXPECT_NEAR(ring_efficiency(RingLayout::striped, ring, 1 << 20) / contiguous, speedups[i], 1e-5);
  }
  EXPECT_NEAR(striped_over_zigzag_tiles(8, 1024 / 128), 1.108, 0.0005);
  EXPECT_NEAR(striped_over_zigzag_tiles(8, 8192 / 128), 1.014, 0.0005);
}

TEST(AnalyticCrossover, RingWithTransfers) {
  const auto speedup = [](double hop) { return contiguous_ring_time(8, hop) / zigzag_ring_time(8, hop); };
  EXPECT_NEAR(speedup(0.0), 1.875, 1e-12);
  EXPECT_NEAR(speedup(0.5), 1.875, 1e-12);
  EXPECT_NEAR(speedup(0.6), 1.62, 0.005);
  EXPECT_NEAR(speedup(1), 1.07, 0.005);
  EXPECT_NEAR(speedup(2), 1.03, 0.005);
  EXPECT_DOUBLE_EQ(contiguous_ring_time(1, 3), zigzag_ring_time(1, 3));
}

TEST(AnalyticCrossover, TimeOptimalBatch) {
  // Errata E-E.9: least training time is at B*, among all batches.
  const double kappa = 0.03, sigma = 0.4, steps = 500, examples = 2e5;
  const double noise = examples / steps;
  const auto training = [&](double batch) { return (kappa * batch + sigma) * steps * (1 + noise / batch); };
  const double best = time_optimal_batch(kappa, sigma, steps, examples);
  EXPECT_NEAR(training(best) / least_training_seconds(kappa, sigma, steps, examples), 1, 1e-12);
  EXPECT_GT(training(best * 1.1), training(best));
  EXPECT_GT(training(best / 1.1), training(best));
}

}  // namespace
}  // namespace annulus
