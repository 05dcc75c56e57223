// Wrong shardings do not build: each collective of the recorded forward is dropped, moved, or made another, and the
// mutant is refused, or equal to one rank in loss and every gradient.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <iostream>

#include "tests/model/composition.h"

namespace annulus::testing {
namespace {

struct Mutation {
  std::string name;
  std::optional<CollectiveRequest> request;  ///< nothing: dropped
};

/// Everything that might stand in a collective's place.
std::vector<Mutation> mutations(const MeshAxes& mesh, const CollectiveRequest& original) {
  std::vector<Mutation> all{{"dropped", std::nullopt}};
  for (std::uint32_t bits = 1; bits <= mesh.all().bits(); ++bits) {
    AxisSet axes;
    for (int axis = 0; axis < mesh.count(); ++axis)
      if (bits >> axis & 1u) axes = axes | AxisSet(axis);
    if (mesh.live(axes) != axes || axes == original.axes) continue;
    CollectiveRequest moved = original;
    moved.axes = axes;
    all.push_back({"moved to " + mesh.label(axes), moved});
  }
  if (original.kind == OpKind::all_reduce) {
    CollectiveRequest reduced = original;
    reduced.reduction = original.reduction == Reduction::sum ? Reduction::max : Reduction::sum;
    all.push_back({"other reduction", reduced});
  }
  for (OpKind kind : {OpKind::all_reduce, OpKind::all_gather, OpKind::reduce_scatter, OpKind::slice}) {
    if (kind == original.kind) continue;
    CollectiveRequest other = original;
    other.kind = kind;
    all.push_back({"made " + std::string(name_of(kind)), other});
  }
  return all;
}

class Mutants {
 public:
  explicit Mutants(Composition composition) : composition_(std::move(composition)) {}

  void run() {
    MeshShape shape = composition_.mesh;
    shape.kv_heads = static_cast<int>(composition_.options.model.kv_heads);
    mesh_ = make_mesh(shape, 0);
    std::vector<CollectiveRequest> originals;
    record_train_step(mesh_, composition_.options, Tail::gradients, [&](const CollectiveRequest& request) {
      originals.push_back(request);
      return std::optional(request);
    });
    for (std::size_t i = 0; i < originals.size(); ++i)
      for (const Mutation& mutation : mutations(mesh_, originals[i])) try_mutant(i, originals[i], mutation);
    std::cout << fmt::format("{}: {} collectives, {} mutants refused, {} equal\n", describe(composition_),
                             originals.size(), refused_, equal_);
    EXPECT_GT(originals.size(), 5u);
    EXPECT_GT(refused_, equal_);
  }

 private:
  void try_mutant(std::size_t target, const CollectiveRequest& original, const Mutation& mutation) {
    Composition mutant = composition_;
    // Every recording counts its own calls, and ranks record side by side.
    const auto filter = [target, mutation] {
      return [target, mutation, seen = std::size_t{0}](const CollectiveRequest& request) mutable {
        return seen++ == target ? mutation.request : std::optional(request);
      };
    };
    const std::string what = fmt::format("collective {} ({} over {}) {}", target, name_of(original.kind),
                                         mesh_.label(original.axes), mutation.name);
    SCOPED_TRACE(what);
    try {
      record_train_step(mesh_, mutant.options, Tail::gradients, filter());
    } catch (const PlacementError&) {
      ++refused_;
      return;
    } catch (const ShapeError&) {
      ++refused_;
      return;
    }
    mutant.filter = filter();
    const Deviation found = deviation_from_one_rank(mutant);
    EXPECT_LT(found.worst(), 1e-10) << "neither refused nor equal, worst at " << found.parameter;
    ++equal_;
  }

  Composition composition_;
  MeshAxes mesh_;
  int refused_ = 0, equal_ = 0;
};

Composition mesh_of(MeshShape mesh, SequenceParallel sp, std::int64_t kv_heads = 12) {
  Composition composition{.mesh = mesh, .options = small_step(fresh_seed())};
  composition.options.sequence_parallel = sp;
  composition.options.model.kv_heads = kv_heads;
  return composition;
}

TEST(Mutants, TensorParallel) { Mutants(mesh_of({.tp = 2}, SequenceParallel::off)).run(); }
TEST(Mutants, SequenceParallel) { Mutants(mesh_of({.tp = 2}, SequenceParallel::on)).run(); }
TEST(Mutants, TensorParallelRing) {
  Mutants(mesh_of({.cp = 2, .tp = 2}, SequenceParallel::off)).run();
  Mutants(mesh_of({.cp = 2, .tp = 2}, SequenceParallel::on)).run();
}
TEST(Mutants, GroupedQueriesEverywhere) {
  Mutants(mesh_of({.dp = 2, .tp = 4}, SequenceParallel::on, 2)).run();
  Mutants(mesh_of({.dp = 2, .tp = 4}, SequenceParallel::off, 2)).run();
}

}  // namespace
}  // namespace annulus::testing
