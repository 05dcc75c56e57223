// Shapes and offsets of shards, against counting.
#include "runtime/program/placement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <random>

#include "runtime/core/error.h"

namespace annulus::testing {
namespace {

MeshAxes mesh_at(const std::array<int, 3>& sizes, int rank) {
  MeshAxes mesh{{{"x", sizes[0]}, {"y", sizes[1]}, {"z", sizes[2]}}, {}};
  for (int axis = 2; axis >= 0; --axis) {
    mesh.axes[static_cast<std::size_t>(axis)].coordinate = rank % sizes[static_cast<std::size_t>(axis)];
    rank /= sizes[static_cast<std::size_t>(axis)];
  }
  return mesh;
}

// Ranks in mixed radix, outer to inner, own one part after another: with the offsets, shards tile the whole.
TEST(Placement, ShardsTileTheWhole) {
  const std::uint64_t seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  std::mt19937_64 engine(seed);
  const auto below = [&](int count) { return static_cast<int>(engine() % static_cast<std::uint64_t>(count)); };
  for (int round = 0; round < 50; ++round) {
    const std::array<int, 3> sizes{below(3) + 1, below(3) + 1, below(3) + 1};
    Placements places{};
    for (int axis = 0; axis < 3; ++axis)
      places[static_cast<std::size_t>(axis)] = below(3) == 0 ? Placement::replicated() : Placement::sharded(below(2));
    const Shape whole{216, 216};  // any three axes of at most 3 ranks divide it
    std::vector<int> owners(static_cast<std::size_t>(whole.elements()), 0);
    const int ranks = sizes[0] * sizes[1] * sizes[2];
    int copies = 1;
    for (int axis = 0; axis < 3; ++axis)
      if (places[static_cast<std::size_t>(axis)].is_replicated()) copies *= sizes[static_cast<std::size_t>(axis)];
    std::int64_t last = -1;
    for (int rank = 0; rank < ranks; ++rank) {
      const MeshAxes mesh = mesh_at(sizes, rank);
      const ValueType type = local_type(mesh, "value", DType::f32, whole, places);
      EXPECT_EQ(global_shape(mesh, type), whole);
      const std::int64_t row = shard_offset(mesh, type, 0), column = shard_offset(mesh, type, 1);
      for (std::int64_t i = 0; i < type.shape[0]; ++i)
        for (std::int64_t j = 0; j < type.shape[1]; ++j)
          ++owners[static_cast<std::size_t>((row + i) * whole[1] + column + j)];
      if (std::all_of(places.begin(), places.begin() + 3, [](Placement p) { return p.is_sharded(0); })) {
        EXPECT_GT(row, last);
        last = row;
      }
    }
    for (int count : owners) ASSERT_EQ(count, copies);
  }
}

TEST(Placement, OffsetsAreMixedRadix) {
  const MeshAxes mesh = mesh_at({2, 3, 2}, 1 * 6 + 2 * 2 + 1);
  Placements places{Placement::sharded(0), Placement::replicated(), Placement::sharded(0)};
  const ValueType type = local_type(mesh, "value", DType::f32, {8, 3}, places);
  EXPECT_EQ(type.shape, Shape({2, 3}));
  EXPECT_EQ(shard_offset(mesh, type, 0), (1 * 2 + 1) * 2);
  EXPECT_EQ(shard_offset(mesh, type, 1), 0);
  EXPECT_EQ(mesh.index(mesh.all()), 11);
}

TEST(Placement, SetsOfAxesByKind) {
  const MeshAxes mesh = mesh_at({2, 1, 2}, 0);
  const ValueType type{DType::f32, {2}, {Placement::sharded(0), Placement::partial_sum(), Placement::partial_sum()}};
  EXPECT_EQ(sharded_axes(mesh, type, 0), AxisSet(0));
  EXPECT_EQ(partial_axes(mesh, type), AxisSet(2)) << "an axis of one rank does not count";
  EXPECT_EQ(describe(mesh, type), "f32[2] x=sharded(0) y=partial(sum) z=partial(sum)");
}

TEST(Placement, LabelsUseAliasesOfWholeSets) {
  MeshAxes mesh{{{"dp", 2, 0}, {"cp", 1, 0}, {"tk", 2, 0}, {"tr", 2, 0}}, {{"tp", AxisSet(2) | AxisSet(3)}}};
  EXPECT_EQ(mesh.label(mesh.all()), "dp+tp");
  EXPECT_EQ(mesh.label(AxisSet(2)), "tk");
  EXPECT_EQ(mesh.label(AxisSet(1)), "none");
  EXPECT_EQ(mesh.size(mesh.all()), 8);
}

}  // namespace
}  // namespace annulus::testing
