#include "runtime/simulate/collective_cost.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

namespace annulus {
namespace {

constexpr double kMB = 1e6;

// Plays a ring all-gather until every rank holds every part; counts the steps, and the bytes that a rank sends.
std::pair<double, int> play_ring_all_gather(int size, std::int64_t payload) {
  std::vector<std::set<int>> held(static_cast<std::size_t>(size));
  for (int rank = 0; rank < size; ++rank) held[static_cast<std::size_t>(rank)] = {rank};
  const auto complete = [&](const std::set<int>& parts) { return static_cast<int>(parts.size()) == size; };
  std::int64_t sent = 0;
  int steps = 0;
  for (; !std::all_of(held.begin(), held.end(), complete); ++steps) {
    for (int rank = 0; rank < size; ++rank) {  // hand on the part that came last
      held[static_cast<std::size_t>((rank + 1) % size)].insert((rank - steps + size) % size);
    }
    sent += payload / size;
  }
  return {static_cast<double>(sent), steps};
}

TEST(CollectiveCost, WireBytesAndStepsOfRings) {
  for (int size = 2; size <= 16; ++size) {
    const std::int64_t payload = 1024 * size;
    const auto [bytes, steps] = play_ring_all_gather(size, payload);
    for (const CollectiveKind kind :
         {CollectiveKind::all_gather, CollectiveKind::reduce_scatter, CollectiveKind::all_to_all}) {
      EXPECT_EQ(wire_bytes(kind, size, static_cast<double>(payload)), bytes);
      EXPECT_EQ(ring_steps(kind, size), steps);
    }
    EXPECT_EQ(wire_bytes(CollectiveKind::all_reduce, size, static_cast<double>(payload)), 2 * bytes);
    EXPECT_EQ(ring_steps(CollectiveKind::all_reduce, size), 2 * steps);
    EXPECT_EQ(wire_bytes(CollectiveKind::shift, size, 1000), 1000);
    EXPECT_EQ(ring_steps(CollectiveKind::shift, size), 1);
  }
}

TEST(CollectiveCost, OneRankMovesNothing) {
  for (int kind = 0; kind <= static_cast<int>(CollectiveKind::shift); ++kind) {
    EXPECT_EQ(wire_bytes(static_cast<CollectiveKind>(kind), 1, 1000), 0);
    EXPECT_EQ(ring_steps(static_cast<CollectiveKind>(kind), 1), 0);
    EXPECT_EQ(ring_seconds(static_cast<CollectiveKind>(kind), 1, 1000, {1, 1}), 0);
  }
}

TEST(CollectiveCost, BusBandwidthFactorsOfNcclTests) {
  EXPECT_DOUBLE_EQ(bus_bandwidth_factor(CollectiveKind::all_reduce, 8), 1.75);
  EXPECT_DOUBLE_EQ(bus_bandwidth_factor(CollectiveKind::all_gather, 8), 0.875);
  EXPECT_DOUBLE_EQ(bus_bandwidth_factor(CollectiveKind::reduce_scatter, 4), 0.75);
  EXPECT_DOUBLE_EQ(bus_bandwidth_factor(CollectiveKind::all_to_all, 2), 0.5);
  EXPECT_DOUBLE_EQ(bus_bandwidth_factor(CollectiveKind::broadcast, 8), 1);
  EXPECT_DOUBLE_EQ(bus_bandwidth_factor(CollectiveKind::shift, 8), 1);
}

TEST(CollectiveCost, AllReduceIsReduceScatterThenAllGather) {
  const Link link{3e-6, 1e10};
  for (const int size : {2, 3, 7, 8}) {
    for (const double payload : {8.0, 1e5, 1e8}) {
      EXPECT_NEAR(ring_seconds(CollectiveKind::all_reduce, size, payload, link),
                  ring_seconds(CollectiveKind::all_gather, size, payload, link) +
                      ring_seconds(CollectiveKind::reduce_scatter, size, payload, link),
                  1e-12);
    }
  }
}

// 64 H100 in nodes of 8 (370 GB/s within, 45 GB/s per network interface): section 5's bandwidths and milliseconds.
NodeGroup h100_nodes(int nodes, int ranks_per_node) { return {nodes, ranks_per_node, {3.4e-6, 370e9}, {14e-6, 45e9}}; }

TEST(CollectiveCost, GroupBandwidthRule) {
  EXPECT_DOUBLE_EQ(group_bandwidth(h100_nodes(1, 8)), 370e9);  // within a node
  EXPECT_DOUBLE_EQ(group_bandwidth(h100_nodes(8, 1)), 45e9);   // TP = 8 leaves data-parallel groups of one per node
  EXPECT_DOUBLE_EQ(group_bandwidth(h100_nodes(8, 8)), 360e9);  // TP = 1: eight rings side by side
  EXPECT_DOUBLE_EQ(group_bandwidth(h100_nodes(8, 4)), 180e9);
}

TEST(CollectiveCost, HierarchicalAllReduceOf64Ranks) {
  const NodeGroup group = h100_nodes(8, 8);
  EXPECT_NEAR(hierarchical_all_reduce_seconds(1 * kMB, group), 0.25e-3, 0.005e-3);
  EXPECT_NEAR(hierarchical_all_reduce_seconds(100 * kMB, group), 1.20e-3, 0.005e-3);
  EXPECT_NEAR(hierarchical_all_reduce_seconds(1000 * kMB, group), 9.8e-3, 0.05e-3);
  // It wins for short messages and loses for long ones.
  const auto ring = [&](double bytes) { return node_ring_seconds(CollectiveKind::all_reduce, bytes, group); };
  EXPECT_LT(hierarchical_all_reduce_seconds(1 * kMB, group), ring(1 * kMB));
  EXPECT_GT(hierarchical_all_reduce_seconds(1000 * kMB, group), ring(1000 * kMB));
  // The bandwidth part of a ring over all 64: 2 (63/64) GB at 360 GB/s.
  EXPECT_NEAR(ring(2000 * kMB) - ring(1000 * kMB), 2.0 * 63 / 64 * 1e9 / 360e9, 1e-9);
}

TEST(CollectiveCost, NodeRingIsARingOnOneNodeAndOnOneRankPerNode) {
  for (const CollectiveKind kind : {CollectiveKind::all_reduce, CollectiveKind::all_gather, CollectiveKind::shift}) {
    EXPECT_DOUBLE_EQ(node_ring_seconds(kind, 1e6, h100_nodes(1, 8)),
                     ring_seconds(kind, 8, 1e6, h100_nodes(1, 8).intra));
    EXPECT_DOUBLE_EQ(node_ring_seconds(kind, 1e6, h100_nodes(8, 1)),
                     ring_seconds(kind, 8, 1e6, h100_nodes(8, 1).inter));
  }
}

TEST(CollectiveCost, TreeHasFewerStepsAndMoreBytesThanARing) {
  const Link link{1e-5, 1e11};
  EXPECT_DOUBLE_EQ(tree_all_reduce_seconds(64, 0, link), 12e-5);
  EXPECT_LT(tree_all_reduce_seconds(64, 1e3, link), ring_seconds(CollectiveKind::all_reduce, 64, 1e3, link));
  EXPECT_GT(tree_all_reduce_seconds(64, 1e11, link), ring_seconds(CollectiveKind::all_reduce, 64, 1e11, link));
}

}  // namespace
}  // namespace annulus
