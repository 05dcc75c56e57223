#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "model/analytic/flops.h"
#include "parallel/layout.h"
#include "tests/model/analytic_models.h"

namespace annulus {
namespace {

using published::gpt2;

std::int64_t brute_pairs(RingLayout layout, std::int64_t ring, std::int64_t local, std::int64_t query,
                         std::int64_t key) {
  std::int64_t pairs = 0;
  const auto held = [&](std::int64_t rank) {
    return positions(layout, static_cast<int>(ring), static_cast<int>(rank), ring * local);
  };
  for (const std::int32_t q : held(query)) {
    for (const std::int32_t k : held(key)) pairs += k <= q ? 1 : 0;
  }
  return pairs;
}

// Section 8's table, against positions and against the blocks that kernels are given.
TEST(AnalyticFlops, RingPairsMatchBruteForceAndBlocks) {
  for (const RingLayout layout : {RingLayout::contiguous, RingLayout::striped, RingLayout::zigzag}) {
    for (std::int64_t ring = 1; ring <= 8; ++ring) {
      for (const std::int64_t n : {1, 2, 5, 6, 12}) {
        if ((ring * n) % sequence_divisor(layout, static_cast<int>(ring)) != 0) continue;
        SCOPED_TRACE(std::string(name_of(layout)) + " R=" + std::to_string(ring) + " n=" + std::to_string(n));
        std::int64_t all = 0, makespan = 0;
        std::vector<std::int64_t> by_rank(static_cast<std::size_t>(ring));
        for (std::int64_t step = 0; step < ring; ++step) {
          std::int64_t slowest = 0;
          for (std::int64_t rank = 0; rank < ring; ++rank) {
            const std::int64_t key = (rank - step + ring) % ring;
            const std::int64_t pairs = brute_pairs(layout, ring, n, rank, key);
            EXPECT_EQ(ring_step_pairs(layout, n, rank, key), pairs);
            std::int64_t in_blocks = 0;
            for (const AttentionBlock& block :
                 ring_blocks(layout, static_cast<int>(ring), static_cast<int>(rank), static_cast<int>(key), ring * n)) {
              in_blocks += block.pairs();
            }
            EXPECT_EQ(in_blocks, pairs);
            slowest = std::max(slowest, pairs);
            by_rank[static_cast<std::size_t>(rank)] += pairs;
            all += pairs;
          }
          makespan += slowest;
        }
        for (std::int64_t rank = 0; rank < ring; ++rank) {
          EXPECT_EQ(ring_rank_pairs(layout, ring, n, rank), by_rank[static_cast<std::size_t>(rank)]);
        }
        EXPECT_EQ(ring_makespan_pairs(layout, ring, n), makespan);
        EXPECT_EQ(static_cast<double>(all), attended_pairs(ring * n, AttentionCount::causal));
      }
    }
  }
}

// Korthikanti's equation 7 and Narayanan's equation 3, as they print them.
TEST(AnalyticFlops, PublishedIdentities) {
  Symbols s = gpt2(24, 16);
  s.V = 51200;
  s.S = 2048;
  s.m = 7;
  const double BLSD2 = static_cast<double>(s.tokens() * s.L) * static_cast<double>(s.D * s.D);
  const auto D = static_cast<double>(s.D), S = static_cast<double>(s.S), V = static_cast<double>(s.V),
             L = static_cast<double>(s.L);
  const auto near = [](double value, double expected) { EXPECT_NEAR(value / expected, 1, 1e-12); };
  near(model_flops(s, AttentionCount::full), 72 * BLSD2 * (1 + S / (6 * D) + V / (12 * D * L)));
  s.recompute = Recompute::full;
  near(hardware_flops(s, AttentionCount::full), 96 * BLSD2 * (1 + S / (6 * D) + V / (16 * L * D)));
  s.recompute = Recompute::selective;  // 2S / 9D, where Korthikanti print S / 3D
  near(hardware_flops(s, AttentionCount::full), 72 * BLSD2 * (1 + 2 * S / (9 * D) + V / (12 * D * L)));
}

struct Utilisation {
  double seconds, mfu, hfu;
};
// Seconds per iteration of table 5, and the utilisations recomputed from them (percent).
constexpr Utilisation kTable5[] = {
    {1.10, 41.65, 42.37}, {13.75, 51.39, 51.85}, {37.83, 56.05, 56.35}, {71.49, 56.27, 56.51}};

TEST(AnalyticFlops, KorthikantiTable5) {
  constexpr double kA100 = 312e12;
  for (std::size_t i = 0; i < std::size(kTable5); ++i) {
    Symbols s = published::kKorthikanti[i].symbols();
    const std::int64_t gpus = published::kKorthikanti[i].gpus();
    const auto percent = [&](double flops) { return 100 * utilisation(flops, kTable5[i].seconds, gpus, kA100); };
    EXPECT_NEAR(percent(model_flops(s, AttentionCount::full)), kTable5[i].mfu, 0.006);
    s.recompute = Recompute::selective;
    EXPECT_NEAR(percent(hardware_flops(s, AttentionCount::full)), kTable5[i].hfu, 0.006);
  }
}

// Ranks together execute the model's FLOPs, and what padding, replicated kv heads and flash's recomputation add.
TEST(AnalyticFlops, RanksSumToTheModel) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const auto pick = [&](std::initializer_list<std::int64_t> values) {
    return values.begin()[random() % values.size()];
  };
  for (int repeat = 0; repeat < 100; ++repeat) {
    Symbols s = gpt2(3, 8);
    s.T = pick({1, 2, 4});
    s.G = pick({4, 8});
    s.R = pick({1, 2, 3, 4});
    s.W = pick({1, 3});
    s.m = pick({1, 2});
    s.S = 24 * pick({1, 2, 5});
    s.V = 128 * s.T * pick({1, 3});
    s.layout = static_cast<RingLayout>(random() % 3);
    double attention = 0;
    for (std::int64_t rank = 0; rank < s.R; ++rank) {
      const AttentionPairs pairs = attention_pairs(s, rank);
      EXPECT_EQ(executed_flops(s, rank), product_flops(s) + 14 * s.H * pairs.forward);
      attention += static_cast<double>(s.T * s.W * 12 * s.H * pairs.forward);
    }
    const double products = static_cast<double>(product_flops(s) * s.ranks());
    EXPECT_NEAR((products + attention) / model_flops(s, AttentionCount::causal), 1, 1e-12);
  }
}

TEST(AnalyticFlops, PaddingAndReplicatedKeysCost) {
  Symbols s = gpt2(2, 8);
  const std::int64_t one = product_flops(s);
  s.T = 8;  // 50257 is padded to 50304 on one rank, to 51200 on eight
  EXPECT_EQ(s.T * product_flops(s) - one, 3 * 2 * s.b() * s.D * (51200 - 50304));
  s.V = 51200;
  s.G = 8;
  const std::int64_t full_heads = product_flops(s);
  s.G = 2;  // two kv heads for eight ranks: each rank computes one of them
  EXPECT_EQ(product_flops(s), full_heads);
}

TEST(AnalyticFlops, RecomputationIsExecuted) {
  Symbols s = gpt2(2, 8);
  const std::int64_t none = executed_flops(s, 0);
  s.recompute = Recompute::selective;  // flash keeps no core: nothing to repeat
  EXPECT_EQ(executed_flops(s, 0), none);
  s.recompute = Recompute::full;
  Symbols all = s;
  all.recompute = Recompute::none;
  std::int64_t forward = attention_forward_flops(s, attention_pairs(all, 0).forward);
  for (const ProductItem& item : product_items(all)) {
    if (item.name != "head") forward += item.flops * item.forward_calls;
  }
  EXPECT_EQ(executed_flops(s, 0), none + forward);
}

TEST(AnalyticFlops, Conventions) {
  const Symbols s = gpt2(12, 12);
  const double full = model_flops(s, AttentionCount::full), causal = model_flops(s, AttentionCount::causal);
  EXPECT_NEAR(full - causal, 12.0 * 12 * 768 * (1024.0 * 1024 - 1024.0 * 1025 / 2), 1);
  EXPECT_DOUBLE_EQ(model_flops_6n(s), 6.0 * 123'653'376 * 1024);
  // Errata E-4.2: the head is 31 % of GPT-2's 6 N.
  EXPECT_NEAR(3 * forward_flops(s, AttentionCount::causal).head / model_flops_6n(s), 0.31, 0.005);
  EXPECT_NEAR(training_seconds(s, 1e9, 1e14, 0.5), model_flops_6n(s) / 1024 * 1e9 / 5e13, 1e-6);
}

}  // namespace
}  // namespace annulus
