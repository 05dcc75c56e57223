#include "runtime/ops/rules.h"

#include <fmt/format.h>

#include <algorithm>

namespace annulus {

Placed match(OpDefinition::AxisPlacements inputs, std::initializer_list<PlacementRow> table) {
  bool laid_out = false;
  for (Placement p : inputs) laid_out = laid_out || p.laid_out;
  std::vector<Placement> plain(inputs.begin(), inputs.end());
  for (Placement& p : plain) {
    if (laid_out && p.is_sharded() && (!p.laid_out || p.dim != 0)) return std::nullopt;
    p.laid_out = false;
  }
  for (const PlacementRow& row : table) {
    if (row.inputs != plain) continue;
    std::vector<Placement> outputs = row.outputs;
    for (Placement& p : outputs) p.laid_out = laid_out && p.is_sharded();
    return outputs;
  }
  return std::nullopt;
}

Placed all_alike(OpDefinition::AxisPlacements inputs, std::size_t outputs, std::initializer_list<Placement> also) {
  const Placement place = inputs.front();
  if (std::any_of(inputs.begin(), inputs.end(), [&](Placement p) { return p != place; })) return std::nullopt;
  const bool allowed =
      place.is_replicated() || place.is_sharded() || std::find(also.begin(), also.end(), place) != also.end();
  if (!allowed) return std::nullopt;
  return std::vector<Placement>(outputs, place);
}

void require(bool holds, const std::string& rule) {
  if (!holds) throw ShapeError(rule);
}

void require_inputs(OpDefinition::Types inputs, std::size_t count) {
  if (inputs.size() != count)
    throw InternalError(fmt::format("an op wants {} inputs and got {}", count, inputs.size()));
}

Work streaming_work(OpDefinition::Types inputs, OpDefinition::Types outputs) {
  Work work;
  for (const ValueType& type : inputs) work.bytes_read += type.bytes();
  for (const ValueType& type : outputs) work.bytes_written += type.bytes();
  return work;
}

void not_differentiable(const OpDefinition& definition) {
  throw InternalError(fmt::format("{} occurs only behind differentiation and has no gradient", definition.name()));
}

}  // namespace annulus
