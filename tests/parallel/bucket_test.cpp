// Buckets: every combination of placements of two values on a mesh of 2 x 2, over every set of axes, is refused, or
// each rank gets its part of what lies in the memory of the ranks that hold the same elements.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <iostream>

#include "tests/parallel/op_runner.h"

namespace annulus::testing {
namespace {

constexpr std::array<int, 4> kSizes{2, 1, 2, 1};
constexpr int kAxes[] = {mesh_axis::dp, mesh_axis::tk};
constexpr int kRanks = 4;

std::vector<Placement> choices() {
  return {Placement::replicated(), Placement::partial_sum(), Placement::partial_max(),
          Placement::sharded(0),   Placement::sharded(1),    Placement::laid_out_rows()};
}

/// Calls `body` for all placements over both axes that a value can have.
void for_each_placement(const std::function<void(const Placements&)>& body) {
  for (Placement outer : choices())
    for (Placement inner : choices()) {
      Placements places{};
      places[mesh_axis::dp] = outer;
      places[mesh_axis::tk] = inner;
      if (!(outer.is_partial() && inner.is_partial() && outer != inner)) body(places);
    }
}

class Bucket : public ::testing::Test {
 protected:
  Bucket() : seed_(std::random_device{}()), draw_(seed_, 1) {
    std::cout << "seed " << seed_ << "\n";
    OpTable table{draw_};
    whole_ = {table.numbers({4, 8}), table.numbers({8, 4})};
  }

  std::vector<std::vector<Block>> spread(const std::vector<Placements>& places) {
    std::vector<std::vector<Block>> parts;
    for (std::size_t i = 0; i < whole_.size(); ++i)
      parts.push_back(
          scatter(draw_, mesh_of(kSizes), {whole_[i].shape, whole_[i].values}, whole_[i].dtype, places[i], {}));
    return parts;
  }

  /// What `rank` should have of the bucket whose values are placed so where they are not divided.
  Numbers expected_part(int rank, AxisSet axes, std::vector<Placements> places) {
    for (Placements& value : places)
      for (int axis : kAxes)
        if (axes.contains(axis)) value[static_cast<std::size_t>(axis)] = Placement::replicated();
    Numbers all;
    for (const std::vector<Block>& value : spread(places)) {
      const Numbers& held = value[static_cast<std::size_t>(rank)].values;
      all.insert(all.end(), held.begin(), held.end());
    }
    const MeshAxes mesh = mesh_of(kSizes, rank);
    const auto size = static_cast<std::int64_t>(all.size()) / mesh.size(axes);
    const auto begin = all.begin() + size * mesh.index(axes);
    return {begin, begin + size};
  }

  /// Tries an op that makes a part, for all placements of both values; returns how many it accepts.
  int accepted(const std::function<OpPointer(const MeshAxes&, AxisSet, std::int64_t)>& make, AxisSet axes) {
    int count = 0, refused = 0;
    for_each_placement([&](const Placements& a) {
      for_each_placement([&](const Placements& b) {
        SCOPED_TRACE(fmt::format("over {}: {} x {}, {} x {}", mesh_of(kSizes).label(axes), a[mesh_axis::dp].str(),
                                 a[mesh_axis::tk].str(), b[mesh_axis::dp].str(), b[mesh_axis::tk].str()));
        try {
          const RanksResult got = run_on_ranks(
              kSizes, whole_, {a, b}, spread({a, b}), [&](Program& program, const std::vector<ValueId>& inputs) {
                std::int64_t elements = 0;
                for (ValueId input : inputs) elements += program.type(input).shape.elements();
                return program.emit(make(program.mesh(), axes, elements / program.mesh().size(axes)), inputs);
              });
          ++count;
          for (int rank = 0; rank < kRanks; ++rank)
            expect_close(got.outputs[0][static_cast<std::size_t>(rank)].values, expected_part(rank, axes, {a, b}),
                         1e-12, "part");
          for (int axis : kAxes)
            if (axes.contains(axis)) {
              EXPECT_EQ(got.types[0].places[static_cast<std::size_t>(axis)], Placement::sharded(0));
            } else {
              EXPECT_EQ(got.types[0].places[static_cast<std::size_t>(axis)].is_sharded(1),
                        a[static_cast<std::size_t>(axis)].is_sharded());
            }
        } catch (const PlacementError&) {
          ++refused;
        }
      });
    });
    EXPECT_GT(refused, count);
    return count;
  }

  std::uint64_t seed_;
  Draw draw_;
  std::vector<OpInput> whole_;
};

const AxisSet kOuter(mesh_axis::dp), kInner(mesh_axis::tk);

// Over one axis: one placement there, and on the other all replicated, or each sharded in one of two dims.
TEST_F(Bucket, ScatterSumsAndDivides) {
  const auto make = [](const MeshAxes&, AxisSet axes, std::int64_t) -> OpPointer {
    return std::make_shared<ScatterBucket>(axes, 2);
  };
  EXPECT_EQ(accepted(make, kOuter), 1 + 2 * 2);
  EXPECT_EQ(accepted(make, kInner), 1 + 2 * 2);
  EXPECT_EQ(accepted(make, kOuter | kInner), 1);
}

TEST_F(Bucket, PartIsWhereItLies) {
  const auto make = [](const MeshAxes& mesh, AxisSet axes, std::int64_t elements) -> OpPointer {
    return std::make_shared<BucketPart>(axes, 2, mesh.index(axes), elements);
  };
  EXPECT_EQ(accepted(make, kOuter), 1 + 2 * 2);
  EXPECT_EQ(accepted(make, kInner), 1 + 2 * 2);
  EXPECT_EQ(accepted(make, kOuter | kInner), 1);
}

// Every rank doubles its part where it lies; gathered, all is doubled.
TEST_F(Bucket, GatherBringsWhatOwnersChanged) {
  for (AxisSet axes : {kOuter, kInner, kOuter | kInner})
    for (Placement other : {Placement::replicated(), Placement::sharded(0), Placement::sharded(1)}) {
      Placements places{};
      for (int axis : kAxes)
        if (!axes.contains(axis)) places[static_cast<std::size_t>(axis)] = other;
      const RanksResult got = run_on_ranks(
          kSizes, whole_, {places, places}, spread({places, places}),
          [&](Program& program, const std::vector<ValueId>& inputs) {
            const MeshAxes& mesh = program.mesh();
            std::int64_t elements = 0;
            for (ValueId input : inputs) elements += program.type(input).shape.elements();
            const ValueId part = program.emit_one(
                std::make_shared<BucketPart>(axes, 2, mesh.index(axes), elements / mesh.size(axes)), inputs);
            const ValueId doubled = program.emit_one(std::make_shared<Accumulate>(), {part, part});
            return program.emit(std::make_shared<GatherBucket>(axes, 2), {inputs[0], inputs[1], doubled});
          });
      for (std::size_t i = 0; i < whole_.size(); ++i) {
        Numbers twice = whole_[i].values;
        for (double& x : twice) x *= 2;
        EXPECT_EQ(got.types[i].places, places);
        expect_close(gather(mesh_of(kSizes), got.outputs[i], got.types[i].places, {}).values, twice, 1e-12, "value");
      }
    }
}

TEST_F(Bucket, GatherRefusesWhatIsNoPartOfIt) {
  Program program(mesh_of(kSizes));
  const auto leaf = [&](const char* name, Shape shape, Placement outer, Placement inner) {
    Placements places{};
    places[mesh_axis::dp] = outer;
    places[mesh_axis::tk] = inner;
    return program.leaf(name, Role::state, DType::f64, shape, places);
  };
  const Placement whole = Placement::replicated(), rows = Placement::sharded(0), columns = Placement::sharded(1);
  const ValueId value = leaf("value", {4, 2}, whole, whole), split = leaf("split", {4, 2}, whole, columns);
  const auto gather_into = [&](ValueId into, ValueId part) {
    program.emit(std::make_shared<GatherBucket>(kOuter, 1), {into, part});
  };
  gather_into(value, leaf("fits", {8, 1}, rows, whole));
  gather_into(split, leaf("fits split", {4, 2}, rows, columns));
  EXPECT_THROW(gather_into(value, leaf("short", {6, 1}, rows, whole)), ShapeError);
  EXPECT_THROW(gather_into(value, leaf("whole", {4, 1}, whole, whole)), PlacementError);
  EXPECT_THROW(gather_into(value, leaf("also split", {8, 2}, rows, columns)), PlacementError);
  EXPECT_THROW(gather_into(split, leaf("not split", {4, 1}, rows, whole)), PlacementError);
  EXPECT_THROW(gather_into(value, leaf("other axis", {8, 1}, whole, rows)), PlacementError);
  EXPECT_THROW(
      program.emit(std::make_shared<ScatterBucket>(kOuter, 1), {leaf("odd", {3, 1}, Placement::partial_sum(), whole)}),
      ShapeError);
}

}  // namespace
}  // namespace annulus::testing
