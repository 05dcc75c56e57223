#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <string>

#include "model/analytic/memory.h"
#include "model/analytic/parameters.h"
#include "tests/model/analytic_models.h"

namespace annulus {
namespace {

using published::kKorthikanti;
using published::Korthikanti;

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;

// What the published formula counts: it leaves out the statistics of norms.
std::int64_t layer_bytes(const Symbols& s) {
  std::int64_t sum = 0;
  for (const MemoryItem& item : layer_activation_items(s)) sum += item.name == "norm statistics" ? 0 : item.bytes;
  return sum;
}

Symbols with(Symbols s, bool sequence_parallel, Recompute recompute) {
  s.sequence_parallel = sequence_parallel;
  s.recompute = recompute;
  return s;
}

TEST(AnalyticMemory, KorthikantiTable2) {
  for (const Korthikanti& row : kKorthikanti) {
    SCOPED_TRACE(row.name);
    const Symbols s = row.symbols();
    const double sbh = static_cast<double>(s.b() * s.D), t = 8;
    const double core = 5.0 * static_cast<double>(s.A * s.S) / static_cast<double>(s.D);
    Symbols one = s;
    one.T = 1;
    EXPECT_DOUBLE_EQ(static_cast<double>(layer_bytes(one)), sbh * (34 + core));
    EXPECT_DOUBLE_EQ(static_cast<double>(layer_bytes(s)), sbh * (10 + 24 / t + core / t));
    EXPECT_DOUBLE_EQ(static_cast<double>(layer_bytes(with(s, true, Recompute::none))), sbh * (34 / t + core / t));
    EXPECT_DOUBLE_EQ(static_cast<double>(layer_bytes(with(s, false, Recompute::selective))), sbh * (10 + 24 / t));
    EXPECT_DOUBLE_EQ(static_cast<double>(layer_bytes(with(s, true, Recompute::selective))), sbh * (34 / t));
    EXPECT_DOUBLE_EQ(static_cast<double>(layer_bytes(with(one, false, Recompute::full))), sbh * 2);
  }
}

struct Figure1 {
  double state, activations, activations_sp_selective;  // GiB per GPU
};
constexpr Figure1 kFigure1[] = {{45.5625, 59.25, 9.5625},
                                {45.5625, 66.84375, 12.3515625},
                                {31.640625, 114.0234375, 23.076171875},
                                {32.958984375, 131.25, 26.5625}};

TEST(AnalyticMemory, KorthikantiFigure1) {
  for (std::size_t i = 0; i < std::size(kFigure1); ++i) {
    const Korthikanti& row = kKorthikanti[i];
    SCOPED_TRACE(row.name);
    const Symbols s = row.symbols();
    // They count 12 L D^2 parameters. The first stage holds L / P layers of as many micro-batches as are in flight.
    const std::int64_t bytes_per_parameter = s.p + s.p_gradient + s.p_optimizer + s.p_master;
    EXPECT_EQ(bytes_per_parameter, 18);
    EXPECT_EQ(static_cast<double>(bytes_per_parameter * 12 * s.L * s.D * s.D / (s.T * row.P)) / kGiB,
              kFigure1[i].state);
    const double layers =
        static_cast<double>(s.L) / static_cast<double>(row.P) * in_flight_micro_batches(row.P, row.v, s.m, 0);
    EXPECT_NEAR(static_cast<double>(layer_bytes(s)) * layers / kGiB, kFigure1[i].activations, 1e-9);
    EXPECT_NEAR(static_cast<double>(layer_bytes(with(s, true, Recompute::selective))) * layers / kGiB,
                kFigure1[i].activations_sp_selective, 1e-9);
  }
}

TEST(AnalyticMemory, Gpt3OfTheNotes) {  // errata E-3.12 to E-3.16
  Symbols s = published::gpt2(96, 96);
  s.H = 128;
  s.D = 12288;
  s.F = 4 * s.D;
  s.K = s.S = 2048;
  EXPECT_NEAR(static_cast<double>(parameters(s)) / 1e9, 174.604, 0.0005);
  s.p = 2;
  s.dropout_mask_bytes = 1;
  s.attention = AttentionStorage::materialised;
  EXPECT_NEAR(static_cast<double>(layer_bytes(s) * s.L) / kGiB, 256.5, 1e-9);
  EXPECT_NEAR(static_cast<double>(layer_bytes(with(s, false, Recompute::selective)) * s.L) / kGiB, 76.5, 1e-9);
}

TEST(AnalyticMemory, InFlightMicroBatches) {
  for (std::int64_t stages : {1, 2, 4, 8}) {
    for (std::int64_t stage = 0; stage < stages; ++stage) {
      EXPECT_EQ(in_flight_micro_batches(stages, 1, 100, stage), static_cast<double>(stages - stage));
      EXPECT_EQ(in_flight_micro_batches(stages, 1, 2, stage),
                static_cast<double>(std::min<std::int64_t>(2, stages - stage)));
    }
    for (std::int64_t v : {2, 3}) {  // Korthikanti's factor 1 + (P - 1) / (P v), of P
      const double factor = 1 + static_cast<double>(stages - 1) / static_cast<double>(stages * v);
      EXPECT_DOUBLE_EQ(in_flight_micro_batches(stages, v, 100, 0), static_cast<double>(stages) * factor);
    }
    EXPECT_EQ(in_flight_micro_batches(stages, 3, stages, 0), static_cast<double>(stages));  // m = P: all parts, no more
  }
}

TEST(AnalyticMemory, FlashKeepsOneNumberPerRowAndNothingForDropout) {
  Symbols s = published::gpt2(12, 12);
  s.B = 4;
  const auto items = layer_activation_items(s);
  const auto bytes_of = [&](const std::string& name) {
    std::int64_t bytes = 0;
    for (const MemoryItem& item : items) bytes += item.name == name ? item.bytes : 0;
    return bytes;
  };
  const std::int64_t rows = 4 * 1024;
  EXPECT_EQ(bytes_of("attention core"), 0);
  EXPECT_EQ(bytes_of("attention log-sum-exp"), 4 * rows * 12);
  EXPECT_EQ(bytes_of("norm statistics"), 2 * 2 * 4 * rows);
  EXPECT_EQ(bytes_of("dropout masks"), 0);
  EXPECT_EQ(bytes_of("MLP hidden"), 2 * 4 * rows * 4 * 768);
  EXPECT_EQ(bytes_of("queries, keys and values"), 4 * rows * 3 * 768);
  EXPECT_EQ(total_bytes(items), 4 * rows * 768 * (2 + 2 + 3 + 1 + 8) + 4 * rows * (12 + 4));
  EXPECT_EQ(total_bytes(activation_items(s)), 12 * total_bytes(items) + total_bytes(other_activation_items(s)));
  EXPECT_EQ(total_bytes(other_activation_items(s)), 2 * 4 * rows * 768 + 2 * 4 * rows + 2 * 4 * rows);
  EXPECT_EQ(logits_bytes(s), 4 * rows * 50304);
}

TEST(AnalyticMemory, RingDividesRowsAndSequenceParallelismTheRest) {
  Symbols s = published::gpt2(12, 12);
  const std::int64_t one = total_bytes(activation_items(s));
  s.R = 4;
  EXPECT_EQ(total_bytes(activation_items(s)) * 4, one);
  s.R = 1;
  s.T = 2;
  s.sequence_parallel = true;
  s.head_input = GatheredInput::gathered_again;
  const std::int64_t loss = 2 * s.p_statistic * s.b();  // of whole rows, on every rank
  EXPECT_EQ((total_bytes(activation_items(s)) - loss) * 2, one - loss);
  s.head_input = GatheredInput::kept;
  EXPECT_EQ((total_bytes(activation_items(s)) - loss - s.p * s.b() * s.D / 2) * 2, one - loss);
  EXPECT_TRUE(ring_buffer_items(s).empty());
  s.R = 2;
  EXPECT_EQ(total_bytes(ring_buffer_items(s)), 2 * 2 * (2 * 4) * s.b() * 6 * 64);  // K, V and dK, dV, each twice
}

TEST(AnalyticMemory, State) {
  Symbols s = published::gpt2(12, 12);
  EXPECT_EQ(total_bytes(state_items(s)), 16 * parameters_on_rank(s));
  s.p = 2;
  s.p_master = 4;
  EXPECT_EQ(total_bytes(state_items(s)), 18 * parameters_on_rank(s));
  s.W = 4;
  s.R = 2;
  s.zero1 = true;
  EXPECT_EQ(total_bytes(state_items(s)), (6 * parameters_on_rank(s)) + 12 * parameters_on_rank(s) / 8);
}

// Errata C-8: n = 30, D = 4096, L = 32, A = 32, p = 2: 34 n D L + 5 A n^2 L bytes.
TEST(AnalyticMemory, SmallPromptOfTheNotes) {
  Symbols s = published::gpt2(32, 32);
  s.H = 128;
  s.D = 4096;
  s.F = 4 * s.D;
  s.S = 30;
  s.p = 2;
  s.dropout_mask_bytes = 1;
  s.attention = AttentionStorage::materialised;
  EXPECT_EQ(layer_bytes(s) * s.L, 34LL * 30 * 4096 * 32 + 5LL * 32 * 30 * 30 * 32);
  EXPECT_NEAR(static_cast<double>(layer_bytes(s) * s.L) / 1e6, 138, 0.5);
}

}  // namespace
}  // namespace annulus
