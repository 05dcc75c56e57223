#include "launch/gpu_placement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "runtime/core/error.h"

namespace annulus {
namespace {

CudaGpu::Id gpu(std::uint8_t number) { return {number}; }

std::vector<CudaGpu::Id> gpus(int count) {
  std::vector<CudaGpu::Id> all;
  for (int i = 0; i < count; ++i) all.push_back(gpu(static_cast<std::uint8_t>(i + 1)));
  return all;
}

std::vector<int> ordinals(const std::vector<RankGpus>& ranks, GpuSharing sharing = GpuSharing::refused) {
  std::vector<int> all;
  for (const GpuPlace& place : place_on_gpus(ranks, sharing)) all.push_back(place.ordinal);
  return all;
}

std::vector<std::string> problems(const std::vector<RankGpus>& ranks) {
  try {
    place_on_gpus(ranks, GpuSharing::refused);
  } catch (const ConfigError& error) {
    return error.problems();
  }
  return {};
}

TEST(GpuPlacement, IsTheLocalRank) {
  EXPECT_EQ(ordinals({{"a", gpus(2)}, {"a", gpus(2)}, {"b", gpus(4)}, {"b", gpus(4)}, {"b", gpus(4)}}),
            (std::vector<int>{0, 1, 0, 1, 2}));
  EXPECT_EQ(ordinals({{"a", gpus(2)}, {"b", gpus(2)}, {"a", gpus(2)}, {"b", gpus(2)}}),
            (std::vector<int>{0, 0, 1, 1}));  // ranks in turns over the hosts
}

TEST(GpuPlacement, RanksThatSeeDifferentGpusGetDifferentOnes) {
  EXPECT_EQ(ordinals({{"a", {gpu(1)}}, {"a", {gpu(2)}}, {"a", {gpu(3)}}}), (std::vector<int>{0, 0, 0}));
  EXPECT_EQ(ordinals({{"a", {gpu(2), gpu(1)}}, {"a", {gpu(1), gpu(2)}}}), (std::vector<int>{0, 0}));
  EXPECT_EQ(ordinals({{"a", {gpu(1)}}, {"a", {gpu(1), gpu(2)}}}), (std::vector<int>{0, 1}));
}

TEST(GpuPlacement, NoTwoRanksShareUnlessTheyMay) {
  std::mt19937 draw(std::random_device{}());
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<RankGpus> ranks(1 + draw() % 12);
    for (RankGpus& rank : ranks) rank = {draw() % 2 ? "a" : "b", gpus(4)};
    const auto on_a = std::count_if(ranks.begin(), ranks.end(), [](const RankGpus& rank) { return rank.host == "a"; });
    const bool fits = on_a <= 4 && std::ssize(ranks) - on_a <= 4;
    EXPECT_EQ(problems(ranks).empty(), fits);
    const std::vector<GpuPlace> places = place_on_gpus(ranks, GpuSharing::allowed);
    for (std::size_t i = 0; i < ranks.size(); ++i) {
      std::vector<int> same;
      for (std::size_t j = 0; j < ranks.size(); ++j)
        if (ranks[j].host == ranks[i].host && places[j].ordinal == places[i].ordinal)
          same.push_back(static_cast<int>(j));
      EXPECT_EQ(places[i].ranks, same);
      const auto here = ranks[i].host == "a" ? on_a : std::ssize(ranks) - on_a;
      EXPECT_LE(std::ssize(same), (here + 3) / 4);  // evenly
    }
  }
}

TEST(GpuPlacement, EveryHostWithTooFewIsNamed) {
  const RankGpus one{"a", gpus(1)}, two{"b", gpus(2)};
  EXPECT_EQ(problems({one, one, two, two, two}),
            (std::vector<std::string>{
                "2 ranks on a: ranks 0 and 1 would share one GPU, of which 1 is visible; start 1 rank there (mpirun "
                "--map-by ppr:1:node), or, to test, set device.share_gpu=true",
                "3 ranks on b: ranks 2 and 4 would share one GPU, of which 2 are visible; start 2 ranks there (mpirun "
                "--map-by ppr:2:node), or, to test, set device.share_gpu=true"}));
  EXPECT_EQ(problems({{"a", gpus(2)}, {"a", {gpu(1)}}}),
            (std::vector<std::string>{"2 ranks on a: ranks 0 and 1 would share one GPU, since each sees only some of "
                                      "the host's 2 (CUDA_VISIBLE_DEVICES); let all ranks see all of them, or each "
                                      "another"}));
  EXPECT_EQ(problems({{"a", {}}}), std::vector<std::string>{"rank 0 on a sees no GPU"});
}

}  // namespace
}  // namespace annulus
