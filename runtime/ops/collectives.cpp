#include "runtime/ops/collectives.h"

#include <fmt/format.h>

#include <algorithm>

#include "runtime/ops/elementwise.h"

namespace annulus {
namespace {

/// Shardings of one dim are ordered, outer to inner: only the innermost may be removed, only a new innermost added. So
/// no axis inside of the outermost of `axes` may shard `dim`, unless it is one of them.
bool innermost(const MeshAxes& mesh, AxisSet axes, int dim, const ValueType& type) {
  bool inside = false;
  for (int a = 0; a < mesh.count(); ++a) {
    inside = inside || axes.contains(a);
    if (inside && mesh[a].size > 1 && !axes.contains(a) && type.places[static_cast<std::size_t>(a)].is_sharded(dim))
      return false;
  }
  return true;
}

/// On the axes of a collective `from` becomes `to`; the other axes stay as they are.
Placed change(const MeshAxes& mesh, int axis, AxisSet axes, int dim, const ValueType& type, Placement from,
              Placement to) {
  const Placement place = type.places[static_cast<std::size_t>(axis)];
  if (!innermost(mesh, axes, dim, type)) return std::nullopt;
  if (!axes.contains(axis)) return {{place}};
  return place == from ? Placed{{to}} : std::nullopt;
}

std::vector<ValueType> divided(const MeshAxes& mesh, AxisSet axes, int dim, OpDefinition::Types inputs) {
  require_inputs(inputs, 1);
  Shape shape = inputs[0].shape;
  const int parts = mesh.size(axes);
  require(dim >= 0 && dim < shape.rank() && shape[dim] % parts == 0,
          fmt::format("dim {} of {} cannot be divided over {} ({} ranks)", dim, shape.str(), mesh.label(axes), parts));
  shape[dim] /= parts;
  return {{inputs[0].dtype, shape, {}}};
}

/// Collectives carry contiguous parts: whole rows. Features are exchanged by sharding the products around them.
void require_rows(int dim) { require(dim == 0, fmt::format("a collective moves whole rows (dim 0), not dim {}", dim)); }

ValueId gather(GradientContext& context, AxisSet axes, int dim) {
  return context.emit(std::make_shared<AllGather>(axes, dim), {context.gradient()}).front();
}

}  // namespace

std::string AllReduce::attributes() const { return std::string(name_of(reduction_)); }
std::optional<CollectiveCall> AllReduce::collective() const {
  return CollectiveCall{CollectiveKind::all_reduce, axes_, reduction_, 0, 0};
}
std::vector<Alias> AllReduce::aliases() const {
  std::vector<Alias> aliases;
  if (storage_ == Storage::in_place)
    for (int i = 0; i < static_cast<int>(values_); ++i) aliases.push_back({i, i});
  return aliases;
}
Placed AllReduce::place(const MeshAxes&, int axis, AxisPlacements inputs, Types) const {
  std::vector<Placement> outputs(inputs.begin(), inputs.end());
  if (!axes_.contains(axis)) return outputs;
  const Placement wanted = reduction_ == Reduction::sum ? Placement::partial_sum() : Placement::partial_max();
  for (Placement& p : outputs) {
    if (p != wanted) return std::nullopt;
    p = Placement::replicated();
  }
  return outputs;
}
std::vector<ValueType> AllReduce::infer(const MeshAxes&, Types inputs) const {
  require_inputs(inputs, values_);
  std::vector<ValueType> outputs;
  for (const ValueType& input : inputs) {
    require(input.dtype == inputs[0].dtype, "a bucket holds one element type");
    outputs.push_back({input.dtype, input.shape, {}});
  }
  return outputs;
}
void AllReduce::gradient(GradientContext& context) const {
  if (reduction_ == Reduction::sum) context.give(0, context.gradient());
}
Work AllReduce::work(Types, Types) const { return {}; }

Placed AllGather::place(const MeshAxes& mesh, int axis, AxisPlacements, Types types) const {
  return change(mesh, axis, axes(), dim(), types[0], Placement::sharded(dim()), Placement::replicated());
}
std::vector<ValueType> AllGather::infer(const MeshAxes& mesh, Types inputs) const {
  require_inputs(inputs, 1);
  require_rows(dim());
  Shape shape = inputs[0].shape;
  shape[dim()] *= mesh.size(axes());
  return {{inputs[0].dtype, shape, {}}};
}
void AllGather::gradient(GradientContext& context) const {
  const ValueType& arriving = context.type(context.gradient());
  const MeshAxes& mesh = context.mesh();
  const bool partial = partial_axes(mesh, arriving).contains(mesh.live(axes()));
  OpPointer op;
  if (partial)
    op = std::make_shared<ReduceScatter>(axes(), dim());
  else
    op = std::make_shared<Slice>(axes(), dim(), mesh.index(axes()), mesh.size(axes()));
  context.give(0, context.emit(op, {context.gradient()}).front());
}
Work AllGather::work(Types, Types) const { return {}; }

Placed ReduceScatter::place(const MeshAxes& mesh, int axis, AxisPlacements, Types types) const {
  return change(mesh, axis, axes(), dim(), types[0], Placement::partial_sum(), Placement::sharded(dim()));
}
std::vector<ValueType> ReduceScatter::infer(const MeshAxes& mesh, Types inputs) const {
  require_rows(dim());
  return divided(mesh, axes(), dim(), inputs);
}
void ReduceScatter::gradient(GradientContext& context) const { context.give(0, gather(context, axes(), dim())); }
Work ReduceScatter::work(Types, Types) const { return {}; }

std::string Slice::attributes() const { return fmt::format("dim {}", dim_); }
Placed Slice::place(const MeshAxes& mesh, int axis, AxisPlacements, Types types) const {
  return change(mesh, axis, axes_, dim_, types[0], Placement::replicated(), Placement::sharded(dim_));
}
std::vector<ValueType> Slice::infer(const MeshAxes& mesh, Types inputs) const {
  return divided(mesh, axes_, dim_, inputs);
}
void Slice::gradient(GradientContext& context) const { context.give(0, gather(context, axes_, dim_)); }
Work Slice::work(Types, Types outputs) const { return streaming_work(outputs, outputs); }

std::string Shift::attributes() const { return fmt::format("distance {}", distance_); }
std::optional<CollectiveCall> Shift::collective() const {
  return CollectiveCall{CollectiveKind::shift, axes_, Reduction::sum, 0, distance_};
}
Placed Shift::place(const MeshAxes&, int, AxisPlacements inputs, Types) const { return {{inputs[0]}}; }
std::vector<ValueType> Shift::infer(const MeshAxes&, Types inputs) const {
  require_inputs(inputs, 1);
  return {{inputs[0].dtype, inputs[0].shape, {}}};
}
void Shift::gradient(GradientContext&) const { not_differentiable(*this); }
Work Shift::work(Types, Types) const { return {}; }

GradientOps gradient_ops() {
  return {[](Program& program, ValueId a, ValueId b) {
            return program.emit_one(std::make_shared<Add>(), {a, b});
          },
          [](Program& program, ValueId x, AxisSet axes) {
            return program.emit_one(std::make_shared<AllReduce>(axes, Reduction::sum), {x});
          },
          [](Program& program, ValueId x, DType to) { return program.emit_one(std::make_shared<Cast>(to), {x}); }};
}

}  // namespace annulus
