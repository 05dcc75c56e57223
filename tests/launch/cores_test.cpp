#include "launch/cores.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <numeric>
#include <set>
#include <thread>

namespace annulus {
namespace {

constexpr int kNoQuota = std::numeric_limits<int>::max();

/// Processors far beyond this host's, so that each is a core of its own whatever the host is.
CpuSet far_cpus(int count, int first = 2000) {
  CpuSet cpus(static_cast<std::size_t>(count));
  std::iota(cpus.begin(), cpus.end(), first);
  return cpus;
}

TEST(Cores, AreSharedEvenlyAndNeverTwice) {
  for (int cores = 1; cores <= 9; ++cores) {
    for (int ranks = 1; ranks <= cores; ++ranks) {
      const std::vector<CpuSet> pools(static_cast<std::size_t>(ranks), far_cpus(cores));
      std::multiset<int> used;
      for (int rank = 0; rank < ranks; ++rank) {
        const CoreShare share = share_of(pools, static_cast<std::size_t>(rank), kNoQuota);
        EXPECT_GE(share.threads, cores / ranks);
        EXPECT_LE(share.threads, (cores + ranks - 1) / ranks);
        EXPECT_EQ(share.cpus.size(), static_cast<std::size_t>(share.threads));
        used.insert(share.cpus.begin(), share.cpus.end());
      }
      EXPECT_EQ(used.size(), static_cast<std::size_t>(cores));
      EXPECT_EQ(std::set<int>(used.begin(), used.end()).size(), used.size());
    }
  }
}

TEST(Cores, MoreRanksThanCoresAreNotBound) {
  const CoreShare share = share_of({far_cpus(2), far_cpus(2), far_cpus(2)}, 1, kNoQuota);
  EXPECT_EQ(share.threads, 1);
  EXPECT_TRUE(share.cpus.empty());
}

TEST(Cores, RanksBoundApartKeepWhatTheyHave) {
  const std::vector<CpuSet> pools = {far_cpus(3, 2000), far_cpus(4, 2003)};
  EXPECT_EQ(share_of(pools, 0, kNoQuota).cpus, pools[0]);
  EXPECT_EQ(share_of(pools, 1, kNoQuota).cpus, pools[1]);
}

TEST(Cores, AQuotaLimitsThreads) {
  EXPECT_EQ(share_of({far_cpus(16)}, 0, 3).threads, 3);
  EXPECT_EQ(share_of({far_cpus(16), far_cpus(16)}, 0, 3).threads, 1);
}

TEST(Cores, TheQuotaIsRead) {
  const auto root = std::filesystem::temp_directory_path() / ("annulus_quota_" + std::to_string(::getpid()));
  std::filesystem::create_directories(root / "sys/fs/cgroup");
  const auto quota_of = [&](const std::string& text) {
    std::ofstream(root / "sys/fs/cgroup/cpu.max") << text;
    return quota_cores(root.string());
  };
  EXPECT_EQ(quota_of("max 100000\n"), kNoQuota);
  EXPECT_EQ(quota_of("250000 100000\n"), 2);
  EXPECT_EQ(quota_of("50000 100000\n"), 1);
  std::filesystem::remove_all(root);
  EXPECT_EQ(quota_cores(root.string()), kNoQuota);
}

TEST(Cores, BindingHoldsForThreadsMadeLater) {
  const CpuSet before = allowed_cpus();
  bind_to({before.back()});
  CpuSet seen;
  std::thread([&] { seen = allowed_cpus(); }).join();
  EXPECT_EQ(seen, CpuSet{before.back()});
  bind_to(before);
  EXPECT_EQ(allowed_cpus(), before);
}

}  // namespace
}  // namespace annulus
