// Collectives and slices change the placement of a value and nothing else: every combination of placements on a mesh
// of 2 x 2, over every set of axes, is refused, or leaves the whole value as it was; so does the gradient.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <iostream>

#include "tests/parallel/op_runner.h"

namespace annulus::testing {
namespace {

constexpr std::array<int, 4> kSizes{2, 1, 2, 1};
constexpr int kAxes[] = {mesh_axis::dp, mesh_axis::tk};

using Make = std::function<OpPointer(const MeshAxes&, AxisSet)>;

struct Kind {
  std::string name;
  Make make;
  bool has_gradient;  ///< none of a maximum; parts of other dims than rows are not gathered
};

std::vector<Kind> kinds() {
  std::vector<Kind> all;
  for (Reduction reduction : {Reduction::sum, Reduction::max})
    all.push_back({fmt::format("all_reduce {}", name_of(reduction)),
                   [reduction](const MeshAxes&, AxisSet axes) { return std::make_shared<AllReduce>(axes, reduction); },
                   reduction == Reduction::sum});
  for (int dim = 0; dim < 2; ++dim) {
    all.push_back({fmt::format("all_gather {}", dim),
                   [dim](const MeshAxes&, AxisSet axes) { return std::make_shared<AllGather>(axes, dim); }, dim == 0});
    all.push_back({fmt::format("reduce_scatter {}", dim),
                   [dim](const MeshAxes&, AxisSet axes) { return std::make_shared<ReduceScatter>(axes, dim); },
                   dim == 0});
    all.push_back({fmt::format("slice {}", dim),
                   [dim](const MeshAxes& mesh, AxisSet axes) {
                     return std::make_shared<Slice>(axes, dim, mesh.index(axes), mesh.size(axes));
                   },
                   dim == 0});
  }
  return all;
}

std::vector<Placement> choices() {
  Placement laid_out_columns = Placement::sharded(1);
  laid_out_columns.laid_out = true;
  return {Placement::replicated(), Placement::partial_sum(),   Placement::partial_max(), Placement::sharded(0),
          Placement::sharded(1),   Placement::laid_out_rows(), laid_out_columns};
}

/// A sum of maxima is no maximum of sums, and no op makes a value that is partial in both ways.
bool has_meaning(const Placements& places) {
  const Placement a = places[mesh_axis::dp], b = places[mesh_axis::tk];
  return !(a.is_partial() && b.is_partial() && a != b);
}

std::string describe(const Placements& places) {
  return places[mesh_axis::dp].str() + " x " + places[mesh_axis::tk].str();
}

class CollectivePlacement : public ::testing::Test {
 protected:
  CollectivePlacement() : seed_(std::random_device{}()), draw_(seed_, 1) {
    std::cout << "seed " << seed_ << "\n";
    whole_ = OpTable{draw_}.numbers({8, 4});
  }

  std::vector<Block> parts(const OpInput& value, const Placements& places) {
    return scatter(draw_, mesh_of(kSizes), {value.shape, value.values}, value.dtype, places, {});
  }

  /// Runs the op; false where it is refused.
  bool accepts(const Kind& kind, AxisSet axes, const Placements& places) {
    SCOPED_TRACE(fmt::format("{} over {} of {}", kind.name, mesh_of(kSizes).label(axes), describe(places)));
    try {
      const RanksResult got = run_on_ranks(kSizes, {whole_}, {places}, {parts(whole_, places)},
                                           [&](Program& program, const std::vector<ValueId>& inputs) {
                                             return program.emit(kind.make(program.mesh(), axes), inputs);
                                           });
      expect_close(gather(mesh_of(kSizes), got.outputs[0], got.types[0].places, {}).values, whole_.values, 1e-12,
                   "value");
      if (kind.has_gradient) check_gradient(kind, axes, places, got.types[0].places);
      return true;
    } catch (const PlacementError&) {
      return false;
    } catch (const ShapeError&) {
      return false;
    }
  }

  /// The gradient is the same whole value, in the input's dual placement, whether it arrives replicated or partial.
  void check_gradient(const Kind& kind, AxisSet axes, const Placements& places, const Placements& out) {
    Placements arriving = out;
    for (int axis : kAxes) {
      Placement& place = arriving[static_cast<std::size_t>(axis)];
      if (place.is_partial()) place = Placement::replicated();
    }
    expect_gradient(kind, axes, places, arriving);
    if (!kind.name.starts_with("all_gather")) return;
    for (int axis : kAxes)
      if (axes.contains(axis)) arriving[static_cast<std::size_t>(axis)] = Placement::partial_sum();
    expect_gradient(kind, axes, places, arriving);
  }

  void expect_gradient(const Kind& kind, AxisSet axes, const Placements& places, const Placements& arriving) {
    SCOPED_TRACE("gradient arrives " + describe(arriving));
    const OpInput gradient = OpTable{draw_}.numbers(whole_.shape);
    const RanksResult got = run_on_ranks(
        kSizes, {whole_, gradient}, {places, arriving}, {parts(whole_, places), parts(gradient, arriving)},
        [&](Program& program, const std::vector<ValueId>& inputs) {
          program.emit(kind.make(program.mesh(), axes), {inputs[0]});
          const Op op = program.op(0);
          std::vector<ValueId> gradients(1, kNoValue);
          GradientContext context(program, op, inputs[1], gradients);
          op.definition->gradient(context);
          if (gradients[0] == inputs[1])  // passed on as it is: a copy, which an op makes
            gradients = program.emit(std::make_shared<Accumulate>(), {zero_like(program, inputs[1]), inputs[1]});
          return gradients;
        });
    for (int axis : kAxes) {
      const Placement place = places[static_cast<std::size_t>(axis)];
      EXPECT_EQ(got.types[0].places[static_cast<std::size_t>(axis)],
                place.is_partial() ? Placement::replicated() : place);
    }
    expect_close(gather(mesh_of(kSizes), got.outputs[0], got.types[0].places, {}).values, gradient.values, 1e-12,
                 "gradient");
  }

  static ValueId zero_like(Program& program, ValueId value) {
    const ValueType type = program.type(value);
    const ValueId leaf = program.leaf("zero", Role::state, type.dtype, global_shape(program.mesh(), type), type.places);
    return program.emit_one(std::make_shared<Zero>(), {leaf});
  }

  std::uint64_t seed_;
  Draw draw_;
  OpInput whole_;
};

TEST_F(CollectivePlacement, EveryCombinationIsRefusedOrKeepsTheValue) {
  int total = 0;
  for (const Kind& kind : kinds()) {
    int accepted = 0, refused = 0;
    for (AxisSet axes : {AxisSet(kAxes[0]), AxisSet(kAxes[1]), AxisSet(kAxes[0]) | AxisSet(kAxes[1])})
      for (Placement outer : choices())
        for (Placement inner : choices()) {
          Placements places{};
          places[mesh_axis::dp] = outer;
          places[mesh_axis::tk] = inner;
          if (has_meaning(places)) ++(accepts(kind, axes, places) ? accepted : refused);
        }
    std::cout << fmt::format("{:20} {:3} accepted, {} refused\n", kind.name, accepted, refused);
    EXPECT_GT(refused, 0);
    total += accepted;
  }
  EXPECT_GT(total, 50);
}

}  // namespace
}  // namespace annulus::testing
