#pragma once

#include <initializer_list>
#include <optional>
#include <vector>

#include "runtime/core/error.h"
#include "runtime/program/differentiate.h"

namespace annulus {

/// Short names for the rows of placement tables.
namespace placements {
inline constexpr Placement R = Placement::replicated();
inline constexpr Placement P = Placement::partial_sum();
inline constexpr Placement Max = Placement::partial_max();
inline constexpr Placement S0 = Placement::sharded(0);
inline constexpr Placement S1 = Placement::sharded(1);
inline constexpr Placement S2 = Placement::sharded(2);
}  // namespace placements

using Placed = std::optional<std::vector<Placement>>;

/// One row of a placement table: these inputs give these outputs.
struct PlacementRow {
  std::vector<Placement> inputs;
  std::vector<Placement> outputs;
};

/// The row that matches, or nothing. A table is written for plain shards; rows (dim 0) that follow a ring layout match
/// too, where all sharded inputs do, and give outputs that do.
Placed match(OpDefinition::AxisPlacements inputs, std::initializer_list<PlacementRow> table);

/// `outputs` copies of `place` where all inputs have it and it is replicated or sharded (or partial(sum), where
/// `linear`).
Placed all_alike(OpDefinition::AxisPlacements inputs, std::size_t outputs, std::initializer_list<Placement> also = {});

/// Throws ShapeError with `rule` unless `holds`.
void require(bool holds, const std::string& rule);
/// Throws ShapeError unless there are `count` inputs.
void require_inputs(OpDefinition::Types inputs, std::size_t count);

/// Reads every input once, writes every output once.
Work streaming_work(OpDefinition::Types inputs, OpDefinition::Types outputs);

/// For kinds that only occur behind differentiation.
[[noreturn]] void not_differentiable(const OpDefinition& definition);

/// Declares the four answers of a kind; their bodies are in its source file.
#define ANNULUS_OP_RULES                                                                                          \
  std::optional<std::vector<Placement>> place(const MeshAxes& mesh, int axis, AxisPlacements inputs, Types types) \
      const override;                                                                                             \
  std::vector<ValueType> infer(const MeshAxes& mesh, Types inputs) const override;                                \
  void gradient(GradientContext& context) const override;                                                         \
  Work work(Types inputs, Types outputs) const override;

}  // namespace annulus
