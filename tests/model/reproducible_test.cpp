// The same options give the same bits: run twice, with lanes delayed at random and freed bytes poisoned, without
// overlap, and with a progress thread or polls; on one rank and on tp2 x cp2 with each layout.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/model/composition.h"

namespace annulus::testing {
namespace {

struct Case {
  MeshShape mesh;
  RingLayout layout;
  DType dtype;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (DType dtype : {DType::f32, DType::f64}) {
    all.push_back({{}, RingLayout::zigzag, dtype});
    for (RingLayout layout : {RingLayout::contiguous, RingLayout::striped, RingLayout::zigzag})
      all.push_back({{.cp = 2, .tp = 2}, layout, dtype});
  }
  return all;
}

Composition composition_of(const Case& which, std::uint64_t seed) {
  Composition composition{.mesh = which.mesh, .options = small_step(seed)};
  StepOptions& options = composition.options;
  options.layout = which.layout;
  options.dtype = which.dtype;
  options.sequence_parallel = which.mesh.tp > 1 ? SequenceParallel::on : SequenceParallel::off;
  options.micro_batches = 2;
  options.model.dropout = {0.1, 0.1, 0.1};
  options.bucket_bytes = 1000;
  return composition;
}

/// The ways to run one composition that must not change a bit.
std::vector<Composition> variants(const Composition& plain, std::uint64_t seed) {
  std::vector<Composition> all(6, plain);
  all[1].executor.disturb_seed = seed;
  all[2].executor.progress = Progress::thread;
  all[3].executor = {.progress = Progress::thread, .disturb_seed = seed + 1};
  all[4].overlap = Overlap::off;
  all[5].overlap = Overlap::off;
  all[5].executor.disturb_seed = seed + 2;
  return all;  // the first is the plain run once more
}

TEST(Reproducible, GradientsToTheBit) {
  const std::uint64_t seed = fresh_seed();
  for (const Case& which : cases()) {
    const Composition plain = composition_of(which, seed);
    const std::vector<Bits> expected = gradient_bits(plain);
    for (const Composition& variant : variants(plain, seed))
      EXPECT_TRUE(gradient_bits(variant) == expected) << name_of(which.dtype) << " " << describe(variant);
  }
}

TEST(Reproducible, WeightsToTheBit) {
  const std::uint64_t seed = fresh_seed();
  for (const Case& which : cases()) {
    const Composition plain = composition_of(which, seed);
    const std::vector<Bits> expected = weight_bits(plain, 3);
    for (const Composition& variant : variants(plain, seed))
      EXPECT_TRUE(weight_bits(variant, 3) == expected) << name_of(which.dtype) << " " << describe(variant);
  }
}

// What is compared must depend on what is computed.
TEST(Reproducible, AnotherSeedGivesOtherBits) {
  const std::uint64_t seed = fresh_seed();
  const Case which{{.cp = 2, .tp = 2}, RingLayout::zigzag, DType::f32};
  EXPECT_FALSE(gradient_bits(composition_of(which, seed)) == gradient_bits(composition_of(which, seed + 1)));
  EXPECT_FALSE(weight_bits(composition_of(which, seed), 1) == weight_bits(composition_of(which, seed + 1), 1));
}

// Loss and norm are the same bits on every rank: all of them decide alike.
TEST(Reproducible, RanksAgreeOnTheSummary) {
  const Composition composition =
      composition_of({{.dp = 2, .cp = 2, .tp = 2}, RingLayout::striped, DType::f32}, fresh_seed());
  const std::vector<Bits> bits = gradient_bits(composition);
  constexpr std::size_t kSummary = 3 * sizeof(double);
  for (const Bits& rank : bits) EXPECT_TRUE(std::equal(rank.begin(), rank.begin() + kSummary, bits.front().begin()));
}

}  // namespace
}  // namespace annulus::testing
