#include <gtest/gtest.h>

#include <initializer_list>
#include <random>
#include <string>

#include "model/analytic/parameters.h"
#include "runtime/core/error.h"
#include "tests/model/analytic_models.h"

namespace annulus {
namespace {

using published::gpt2;
using published::llama;

TEST(AnalyticParameters, PublishedCounts) {
  EXPECT_EQ(parameters(gpt2(12, 12)), 124'439'808);
  EXPECT_EQ(parameters(gpt2(48, 25)), 1'557'611'200);
  EXPECT_EQ(parameters(llama(4096, 32, 32, 11008, 32, 32000)), 6'738'415'616);       // Llama-2-7B
  EXPECT_EQ(parameters(llama(8192, 64, 8, 28672, 80, 32000)), 68'976'648'192);       // Llama-2-70B
  EXPECT_EQ(parameters(llama(4096, 32, 8, 14336, 32, 128256)), 8'030'261'248);       // Llama-3-8B
  EXPECT_EQ(parameters(llama(8192, 64, 8, 28672, 80, 128256)), 70'553'706'496);      // Llama-3-70B
  EXPECT_EQ(parameters(llama(16384, 128, 8, 53248, 126, 128256)), 405'853'388'800);  // Llama-3.1-405B
  Symbols qwen = llama(896, 14, 2, 4864, 24, 151936);                                // Qwen2.5-0.5B
  qwen.tied_head = qwen.qkv_bias = true;
  EXPECT_EQ(parameters(qwen), 494'032'768);
  Symbols gemma = llama(3072, 16, 16, 24576, 28, 256000);  // Gemma-7B: A H = 4096 is not D
  gemma.H = 256;
  gemma.tied_head = true;
  EXPECT_EQ(parameters(gemma), 8'537'680'896);
  Symbols gptj = llama(4096, 16, 16, 16384, 28, 50400);  // GPT-J-6B: one norm per layer, shared by both halves
  gptj.mlp_products = 2;
  gptj.norms = 1;
  gptj.norm_vectors = 2;
  gptj.mlp_bias = gptj.head_bias = true;
  EXPECT_EQ(parameters(gptj), 6'050'882'784);
}

TEST(AnalyticParameters, NarayananEquation2) {  // arXiv:2104.04473: 12 L D^2 (1 + 13 / 12D + (V + S) / 12LD)
  Symbols s = gpt2(128, 160);
  s.D = 25600;
  s.H = 160;
  s.F = 4 * s.D;
  s.V = 51200;
  s.K = 2048;
  const std::int64_t eq2 = 12 * s.L * s.D * s.D + 13 * s.L * s.D + (s.V + s.K) * s.D;
  EXPECT_EQ(parameters(s), eq2 + 2 * s.D);  // they leave out the final norm
  EXPECT_NEAR(static_cast<double>(parameters(s)) / 1e9, 1008.04, 0.005);
}

TEST(AnalyticParameters, ThoseOf6N) {
  EXPECT_EQ(parameters_in_products(gpt2(12, 12)), 124'439'808 - 1024 * 768);
  EXPECT_EQ(parameters_in_products(llama(4096, 32, 8, 14336, 32, 128256)), 8'030'261'248 - 128256LL * 4096);
}

// All ranks together hold the model, its padding, and copies of what is replicated.
TEST(AnalyticParameters, SumOverRanks) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const auto pick = [&](std::initializer_list<std::int64_t> values) {
    return values.begin()[random() % values.size()];
  };
  for (int repeat = 0; repeat < 200; ++repeat) {
    Symbols s = random() % 2 == 0 ? gpt2(3, 8) : llama(64, 8, 8, 96, 2, 101);
    s.T = pick({1, 2, 4, 8});
    s.G = pick({1, 2, 4, 8});
    s.V = 1 + static_cast<std::int64_t>(random() % 5000);
    s.vocabulary_multiple = pick({1, 8, 128});
    const std::int64_t norms = (2 * s.L + 1) * s.norm_vectors * s.D;
    const std::int64_t replicated = norms + (s.output_bias ? 2 * s.L * s.D : 0) + s.K * s.D;
    const std::int64_t kv = s.L * 2 * s.G * s.H * (s.D + (s.qkv_bias ? 1 : 0));
    const std::int64_t kv_copies = s.G < s.T ? s.T / s.G - 1 : 0;
    const std::int64_t padding = (s.padded_vocabulary() - s.V) * s.D * (s.tied_head ? 1 : 2);
    EXPECT_EQ(s.T * parameters_on_rank(s), parameters(s) + padding + (s.T - 1) * replicated + kv_copies * kv);
  }
}

TEST(AnalyticParameters, PaddedVocabulary) {
  Symbols s = gpt2(1, 8);
  EXPECT_EQ(s.padded_vocabulary(), 50304);
  s.T = 8;
  EXPECT_EQ(s.padded_vocabulary(), 51200);
  s.V = 51200;
  EXPECT_EQ(s.padded_vocabulary(), 51200);
}

TEST(AnalyticParameters, WhatDoesNotDivideIsRefused) {
  Symbols s = gpt2(1, 10);
  s.T = 4;
  EXPECT_THROW((void)parameters_on_rank(s), ShapeError);
  s.T = 1;
  s.R = 3;
  EXPECT_THROW(check(s), ShapeError);
  s.S = 24;
  EXPECT_NO_THROW(check(s));
}

}  // namespace
}  // namespace annulus
