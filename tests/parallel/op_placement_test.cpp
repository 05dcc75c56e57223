// Every combination of input placements of every op kind: what the rule accepts gives one rank's result on two ranks.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>

#include "tests/parallel/op_runner.h"

namespace annulus::testing {
namespace {

constexpr AttentionAxes kAttentionAxes{AxisSet(mesh_axis::dp), AxisSet(mesh_axis::cp), AxisSet(mesh_axis::tr)};

/// Every placement of a value of `rank` dims.
std::vector<Placement> placements_of(int rank) {
  std::vector<Placement> all{Placement::replicated(), Placement::partial_sum(), Placement::partial_max()};
  for (int dim = 0; dim < rank; ++dim) {
    all.push_back(Placement::sharded(dim));
    all.push_back({Placement::Kind::sharded, static_cast<std::int8_t>(dim), true});
  }
  return all;
}

struct Count {
  int accepted = 0;
  std::int64_t refused = 0;
};

/// All placements of one case's inputs over one axis of two ranks.
class Enumeration {
 public:
  Enumeration(Draw& draw, const OpCase& op, int axis) : draw_(draw), op_(op), axis_(axis) {
    sizes_[static_cast<std::size_t>(axis)] = 2;
    mesh_ = mesh_of(sizes_);
    for (const OpInput& input : op.inputs) {
      whole_.push_back({input.dtype, input.shape, {}});
      choices_.push_back(placements_of(input.shape.rank()));
    }
  }

  Count run() {
    const OpPointer prototype = op_.make(mesh_of({1, 1, 1, 1}), whole_);
    expected_ = run_on_one_rank(op_.inputs, record_op(op_, RingLayout::zigzag)).outputs;
    std::vector<std::size_t> choice(choices_.size(), 0);
    std::vector<Placement> places(choices_.size());
    std::vector<ValueType> types = whole_;
    for (bool more = true; more;) {
      bool fits = true;
      for (std::size_t i = 0; i < choice.size(); ++i) {
        places[i] = choices_[i][choice[i]];
        types[i].shape = whole_[i].shape;
        if (places[i].is_sharded()) {
          fits = fits && types[i].shape[places[i].dim] % 2 == 0;
          types[i].shape[places[i].dim] /= 2;
        }
        types[i].places[static_cast<std::size_t>(axis_)] = places[i];
      }
      if (fits && prototype->place(mesh_, axis_, places, types))
        try_layouts(places);
      else
        ++count_.refused;
      more = false;
      for (std::size_t i = 0; i < choice.size() && !more; ++i) {
        more = ++choice[i] < choices_[i].size();
        if (!more) choice[i] = 0;
      }
    }
    return count_;
  }

 private:
  /// What is laid out is tried in every layout, but one counts.
  void try_layouts(const std::vector<Placement>& on_axis) {
    const bool laid_out = std::any_of(on_axis.begin(), on_axis.end(), [](Placement p) { return p.laid_out; });
    bool accepted = try_combination(on_axis, {RingLayout::striped, op_.sequences});
    for (RingLayout layout : {RingLayout::contiguous, RingLayout::zigzag})
      if (accepted && laid_out) accepted = try_combination(on_axis, {layout, op_.sequences});
    accepted ? ++count_.accepted : ++count_.refused;
  }

  /// False where shapes refuse it.
  bool try_combination(const std::vector<Placement>& on_axis, const Spread& spread) {
    std::string what = mesh_[axis_].name + " " + std::string(name_of(spread.layout)) + ":";
    std::vector<Placements> places(on_axis.size());
    for (std::size_t i = 0; i < on_axis.size(); ++i) {
      places[i][static_cast<std::size_t>(axis_)] = on_axis[i];
      what += " " + on_axis[i].str();
    }
    SCOPED_TRACE(what);
    std::vector<std::vector<Block>> parts;
    for (std::size_t i = 0; i < places.size(); ++i)
      parts.push_back(
          scatter(draw_, mesh_, {op_.inputs[i].shape, op_.inputs[i].values}, op_.inputs[i].dtype, places[i], spread));
    try {
      const RanksResult got = run_on_ranks(sizes_, op_.inputs, places, parts, record_op(op_, spread.layout));
      for (std::size_t i = 0; i < got.outputs.size(); ++i)
        expect_close(gather(mesh_, got.outputs[i], got.types[i].places, spread).values, expected_[i][0].values, 1e-12,
                     fmt::format("output {} ({})", i, describe(mesh_, got.types[i])));
      return true;
    } catch (const ShapeError&) {
      return false;
    }
  }

  Draw& draw_;
  const OpCase& op_;
  int axis_;
  std::array<int, 4> sizes_{1, 1, 1, 1};
  MeshAxes mesh_;
  std::vector<ValueType> whole_;
  std::vector<std::vector<Placement>> choices_;
  std::vector<std::vector<Block>> expected_;
  Count count_;
};

bool is_attention(OpKind kind) {
  return kind == OpKind::attention || kind == OpKind::attention_grad || kind == OpKind::attention_step ||
         kind == OpKind::attention_step_grad;
}
bool is_composite(OpKind kind) { return kind == OpKind::attention || kind == OpKind::attention_grad; }

/// Axes that a kind may treat apart: attention knows batch, ring, heads and replicas; others know no axis by name. One
/// step of a ring is less than the ring, which is tried as the composite.
std::vector<int> axes_of(OpKind kind) {
  if (is_composite(kind)) return {mesh_axis::dp, mesh_axis::cp, mesh_axis::tk, mesh_axis::tr};
  if (is_attention(kind)) return {mesh_axis::dp, mesh_axis::tk, mesh_axis::tr};
  return {mesh_axis::tk};
}

Count enumerate(Draw& draw, OpKind kind) {
  Count total;
  std::vector<OpCase> cases = cases_of(kind, {draw, DType::f64, kAttentionAxes});
  EXPECT_FALSE(cases.empty());
  for (const OpCase& op : cases)
    for (int axis : axes_of(kind)) {
      SCOPED_TRACE(fmt::format("{} {}", name_of(kind), op.label));
      const Count count = Enumeration(draw, op, axis).run();
      total.accepted += count.accepted;
      total.refused += count.refused;
    }
  return total;
}

TEST(OpPlacement, EveryCombinationIsRefusedOrRight) {
  const std::uint64_t seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  Draw draw(seed, 4);
  Count total;
  const auto check = [&](OpKind kind) {
    if (kind == OpKind::slice) return;  // changes placements alone: see CollectivePlacement
    const Count count = enumerate(draw, kind);
    std::cout << fmt::format("{:20} {:4} accepted, {} refused\n", name_of(kind), count.accepted, count.refused);
    EXPECT_GT(count.accepted, 0);
    EXPECT_GT(count.refused, 0);
    total.accepted += count.accepted;
    total.refused += count.refused;
  };
  for (const OpKind kind : kComputeAndCompositeKinds) check(kind);
  std::cout << fmt::format("{} accepted and equal to one rank, {} refused\n", total.accepted, total.refused);
}

}  // namespace
}  // namespace annulus::testing
