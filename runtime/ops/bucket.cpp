#include "runtime/ops/bucket.h"

#include <fmt/format.h>

#include <algorithm>

namespace annulus {
namespace {

/// The placement of a part on an axis over which the bucket is not divided, or nothing.
std::optional<Placement> beside(OpDefinition::AxisPlacements values) {
  const auto all = [&](auto holds) { return std::all_of(values.begin(), values.end(), holds); };
  if (all([](Placement p) { return p.is_replicated(); })) return Placement::replicated();
  if (all([](Placement p) { return p.is_sharded() && !p.laid_out; })) return Placement::sharded(1);
  return std::nullopt;
}

/// On the divided axes every value is `from` and the part sharded by rows.
Placed part_of(OpDefinition::AxisPlacements values, bool divided, Placement from) {
  if (divided) {
    const bool alike = std::all_of(values.begin(), values.end(), [&](Placement p) { return p == from; });
    return alike ? Placed{{Placement::sharded(0)}} : std::nullopt;
  }
  const auto place = beside(values);
  return place ? Placed{{*place}} : std::nullopt;
}

ValueType part_type(const MeshAxes& mesh, AxisSet axes, OpDefinition::Types values) {
  const int parts = mesh.size(axes);
  std::int64_t elements = 0;
  for (const ValueType& value : values) {
    require(value.dtype == values[0].dtype, "a bucket holds one element type");
    elements += value.shape.elements();
  }
  require(elements % parts == 0, fmt::format("a bucket of {} elements cannot be divided over {} ({} ranks)", elements,
                                             mesh.label(axes), parts));
  return {values[0].dtype, {elements / parts, 1}, {}};
}

}  // namespace

std::optional<CollectiveCall> ScatterBucket::collective() const {
  return CollectiveCall{CollectiveKind::reduce_scatter, axes(), Reduction::sum, 0, 0};
}
Placed ScatterBucket::place(const MeshAxes&, int axis, AxisPlacements inputs, Types) const {
  return part_of(inputs, axes().contains(axis), Placement::partial_sum());
}
std::vector<ValueType> ScatterBucket::infer(const MeshAxes& mesh, Types inputs) const {
  require_inputs(inputs, values());
  return {part_type(mesh, axes(), inputs)};
}
void ScatterBucket::gradient(GradientContext&) const { not_differentiable(*this); }
Work ScatterBucket::work(Types, Types) const { return {}; }

Placed BucketPart::place(const MeshAxes&, int axis, AxisPlacements inputs, Types) const {
  return part_of(inputs, axes().contains(axis), Placement::replicated());
}
std::vector<ValueType> BucketPart::infer(const MeshAxes& mesh, Types inputs) const {
  require_inputs(inputs, values());
  const ValueType part = part_type(mesh, axes(), inputs);
  require(part.shape[0] == elements_, "a bucket has parts of another size");
  return {part};
}
void BucketPart::gradient(GradientContext&) const { not_differentiable(*this); }
Work BucketPart::work(Types, Types) const { return {}; }

std::optional<CollectiveCall> GatherBucket::collective() const {
  return CollectiveCall{CollectiveKind::all_gather, axes(), Reduction::sum, 0, 0};
}
std::vector<Alias> GatherBucket::aliases() const {
  std::vector<Alias> aliases;
  for (int i = 0; i < static_cast<int>(values()); ++i) aliases.push_back({i, i});
  return aliases;
}
Placed GatherBucket::place(const MeshAxes&, int axis, AxisPlacements inputs, Types) const {
  const AxisPlacements destinations = inputs.first(values());
  const Placed expected = part_of(destinations, axes().contains(axis), Placement::replicated());
  if (!expected || expected->front() != inputs.back()) return std::nullopt;
  return std::vector<Placement>(destinations.begin(), destinations.end());
}
std::vector<ValueType> GatherBucket::infer(const MeshAxes& mesh, Types inputs) const {
  require_inputs(inputs, values() + 1);
  const ValueType part = part_type(mesh, axes(), inputs.first(values()));
  require(part.shape == inputs.back().shape && part.dtype == inputs.back().dtype, "that is no part of the bucket");
  std::vector<ValueType> outputs;
  for (const ValueType& value : inputs.first(values())) outputs.push_back({value.dtype, value.shape, {}});
  return outputs;
}
void GatherBucket::gradient(GradientContext&) const { not_differentiable(*this); }
Work GatherBucket::work(Types, Types) const { return {}; }

}  // namespace annulus
