#include <gtest/gtest.h>

#include <iterator>
#include <string_view>
#include <utility>

#include "model/analytic/crossover.h"
#include "model/analytic/flops.h"
#include "model/analytic/parameters.h"
#include "model/analytic/time.h"
#include "runtime/core/error.h"
#include "runtime/simulate/collective_cost.h"
#include "tests/model/analytic_models.h"

namespace annulus {
namespace {

constexpr CollectiveKind kKinds[] = {CollectiveKind::all_reduce, CollectiveKind::all_gather,
                                     CollectiveKind::reduce_scatter, CollectiveKind::shift};

/// A machine of constant rates, whose collectives are rings over one link.
HardwareProfile flat(double products, double attention, double memory, const Link& link, int ranks) {
  HardwareProfile profile;
  profile.name = "flat";
  profile.peak_flops_per_second = products;
  profile.products[DType::f32] = RateCurve({{1, products}});
  profile.attention_forward[DType::f32] = profile.attention_backward[DType::f32] = RateCurve({{1, attention}});
  profile.memory = RateCurve({{1, memory}});
  for (const CollectiveKind kind : kKinds) {
    const auto seconds = [&](double bytes) { return ring_seconds(kind, ranks, bytes, link); };
    profile.collectives[{kind, ranks}] = TransferCurve({{1, seconds(1)}, {1e9, seconds(1e9)}});
  }
  return profile;
}

/// An A100 node as table 4 of Korthikanti et al. shows it for their 22B model: of a layer's 7.7 ms forward, 4.09 are
/// products (0.727 of 312 TFLOP/s), 1.30 the unfused core (0.30 in its products), 1.67 two all-reduces (211 GB/s).
HardwareProfile a100() { return flat(0.727 * 312e12, 0.30 * 312e12, 0.8 * 2.039e12, {5e-6, 211e9}, 8); }

Symbols with(Symbols s, bool sequence_parallel, Recompute recompute) {
  s.sequence_parallel = sequence_parallel;
  s.recompute = recompute;
  return s;
}

double phase_seconds(const StepTime& time, StepPhase phase) {
  double seconds = 0;
  for (const ComputeTime& entry : time.compute) {
    seconds += phase == StepPhase::forward ? entry.forward_seconds : entry.backward_seconds;
  }
  for (const CommunicationTime& entry : time.communication) {
    seconds += entry.item.phase == phase ? entry.exposed_seconds : 0;
  }
  return seconds;
}

TEST(AnalyticTime, KorthikantiTable4) {  // milliseconds of one layer of the 22B model, forward and backward
  struct Row {
    bool sequence_parallel;
    Recompute recompute;
    double forward, backward;
  };
  constexpr Row kRows[] = {{false, Recompute::none, 7.7, 11.9},
                           {true, Recompute::none, 7.2, 11.8},
                           {false, Recompute::full, 7.7, 19.5},
                           {false, Recompute::selective, 7.7, 13.2},
                           {true, Recompute::selective, 7.2, 13.1}};
  for (const Row& row : kRows) {
    Symbols s = with(published::kKorthikanti[0].symbols(), row.sequence_parallel, row.recompute);
    const StepTime all = step_time(s, a100(), DType::f32);
    s.L -= 1;
    const StepTime less = step_time(s, a100(), DType::f32);
    const auto layer = [&](StepPhase phase) { return 1e3 * (phase_seconds(all, phase) - phase_seconds(less, phase)); };
    EXPECT_NEAR(layer(StepPhase::forward) / row.forward, 1, 0.05);
    EXPECT_NEAR(layer(StepPhase::backward) / row.backward, 1, 0.08);
  }
}

TEST(AnalyticTime, KorthikantiTable5) {  // seconds per iteration, of which the constants above know nothing
  struct Row {
    double full, present;
  };
  constexpr Row kSeconds[] = {{1.42, 1.10}, {18.13, 13.75}, {49.05, 37.83}, {94.42, 71.49}};
  for (std::size_t i = 0; i < std::size(kSeconds); ++i) {
    const auto& row = published::kKorthikanti[i];
    SCOPED_TRACE(row.name);
    // One stage of P holds 1 / P of the layers; the pipeline's bubble makes the step longer.
    const auto predicted = [&](bool sequence_parallel, Recompute recompute) {
      const Symbols s = with(row.symbols(), sequence_parallel, recompute);
      const double step = step_time(s, a100(), DType::f32).seconds();
      return step / static_cast<double>(row.P) * (1 + pipeline_bubble(row.P, row.v, s.m));
    };
    EXPECT_NEAR(predicted(false, Recompute::full) / kSeconds[i].full, 1, 0.09);
    EXPECT_NEAR(predicted(true, Recompute::selective) / kSeconds[i].present, 1, 0.09);
  }
}

const CommunicationTime& entry_of(const StepTime& time, CommunicationRole role, StepPhase phase) {
  for (const CommunicationTime& entry : time.communication) {
    if (entry.item.role == role && entry.item.phase == phase) return entry;
  }
  throw InternalError("no such entry");
}

TEST(AnalyticTime, RingFollowsSection8) {
  Symbols s = published::llama(4096, 32, 32, 11008, 2, 32000);
  s.R = 8;
  s.S = 8 * 8192;
  const std::int64_t n = s.n();
  const double full_block = static_cast<double>(attention_forward_flops(s, n * n * s.A));
  const double message = static_cast<double>(2 * s.p * n * s.G * s.H);
  for (const double hop : {0.25, 0.6, 1.0, 2.0}) {  // in units of a full block's time
    const HardwareProfile profile = flat(1e12, 1e12, 1e11, {0, message / (hop * full_block / 1e12)}, 8);
    const auto units = [&](RingLayout layout) {
      s.layout = layout;
      const StepTime time = step_time(s, profile, DType::f32);
      double seconds = entry_of(time, CommunicationRole::ring_kv, StepPhase::forward).exposed_seconds;
      for (const ComputeTime& entry : time.compute) seconds += entry.name == "attention" ? entry.forward_seconds : 0;
      return seconds / static_cast<double>(s.L) / (full_block / 1e12);
    };
    EXPECT_NEAR(units(RingLayout::contiguous), contiguous_ring_time(8, hop), 1e-3);
    EXPECT_NEAR(units(RingLayout::zigzag), zigzag_ring_time(8, hop), 1e-3);
  }
}

TEST(AnalyticTime, OneRankOnlyComputes) {
  const Symbols s = published::gpt2(12, 12);
  HardwareProfile profile = flat(2e11, 1e11, 3e10, {1e-6, 1e10}, 2);
  profile.collectives.clear();
  const StepTime time = step_time(s, profile, DType::f32);
  EXPECT_EQ(time.communication_seconds(), 0);
  EXPECT_EQ(time.seconds(), time.compute_seconds());
  double products = 0;
  for (const ProductItem& item : product_items(s)) {
    for (const ComputeTime& entry : time.compute) {
      products += entry.name == item.name ? entry.forward_seconds + entry.backward_seconds : 0;
    }
  }
  EXPECT_NEAR(products / (static_cast<double>(product_flops(s)) / 2e11), 1, 1e-12);
  EXPECT_NEAR(time.optimizer_seconds / (28.0 * static_cast<double>(parameters_on_rank(s)) / 3e10), 1, 1e-12);
  Symbols two = s;
  two.T = 2;
  EXPECT_THROW((void)step_time(two, profile, DType::f32), ConfigError);
}

TEST(AnalyticTime, FusedEpiloguesLeaveActivationsNormsAndBiasGradients) {
  const HardwareProfile profile = flat(2e11, 1e11, 3e10, {1e-6, 1e10}, 2);
  const auto seconds = [&](Symbols s, std::string_view name) {
    for (const ComputeTime& entry : step_time(s, profile, DType::f32).compute)
      if (entry.name == name) return std::pair(entry.forward_seconds, entry.backward_seconds);
    return std::pair(-1.0, -1.0);
  };
  Symbols s = published::gpt2(12, 12);
  const auto activation = seconds(s, "activation");
  EXPECT_GT(activation.first, 0);
  s.fused_epilogues = true;
  EXPECT_EQ(seconds(s, "activation"), activation) << "a product that applies it takes as long for it";
  const double stream = static_cast<double>(s.p * s.b() * s.D) / 3e10 * static_cast<double>(s.L * s.norms * s.m);
  EXPECT_NEAR(seconds(s, "norms").first / (2 * stream), 1, 1e-9);
  EXPECT_EQ(seconds(s, "bias, dropout, residual").first, -1);
  // Query, key, value, output and down have D columns each, up has F.
  const double biased = static_cast<double>(s.p * s.b() * (5 * s.D + s.F)) / 3e10 * static_cast<double>(s.L * s.m);
  EXPECT_NEAR(seconds(s, "bias gradients").second / biased, 1, 1e-9);
  // The forward loss reads the logits once; over tp the maximum is known before the sum.
  const auto logits = [&] { return static_cast<double>(s.p * s.b() * s.padded_vocabulary() / s.T * s.m) / 3e10; };
  EXPECT_NEAR(seconds(s, "cross entropy").first / logits(), 1, 1e-9);
  s.T = 2;
  EXPECT_NEAR(seconds(s, "norms").first / (4 * stream), 1, 1e-9);  // two streams in, two out
  EXPECT_NEAR(seconds(s, "cross entropy").first / (2 * logits()), 1, 1e-9);
}

TEST(AnalyticTime, HiddenNeverExceedsWhatThereIs) {
  for (const Link& link : {Link{1e-7, 1e12}, Link{1e-4, 1e9}}) {
    for (const bool sequence_parallel : {false, true}) {
      Symbols s = with(published::gpt2(6, 8), sequence_parallel, Recompute::none);
      s.B = 4;
      s.T = s.R = s.W = 2;
      HardwareProfile profile = flat(2e11, 1e11, 3e10, link, 2);
      const StepTime time = step_time(s, profile, DType::f32);
      for (const CommunicationTime& entry : time.communication) {
        EXPECT_GE(entry.exposed_seconds, 0) << name_of(entry.item.role);
        EXPECT_LE(entry.exposed_seconds, entry.seconds * (1 + 1e-12)) << name_of(entry.item.role);
      }
      EXPECT_NEAR(time.seconds(), time.compute_seconds() + time.exposed_seconds(), 1e-12);
      profile.overlap = {{1, 1, 1}};  // then nothing is gained by overlapping
      const StepTime lossy = step_time(s, profile, DType::f32);
      EXPECT_NEAR(lossy.seconds() / (time.compute_seconds() + time.communication_seconds()), 1, 1e-12);
    }
  }
}

}  // namespace
}  // namespace annulus
