#include "runtime/program/placement.h"

#include <fmt/format.h>

#include "runtime/core/error.h"

namespace annulus {

std::string Placement::str() const {
  switch (kind) {
    case Kind::replicated:
      return "replicated";
    case Kind::sharded:
      return fmt::format("sharded({}{})", dim, laid_out ? ", by layout" : "");
    case Kind::partial_sum:
      return "partial(sum)";
    case Kind::partial_max:
      return "partial(max)";
  }
  return "?";
}

namespace {

template <class Predicate>
AxisSet axes_where(const MeshAxes& mesh, const ValueType& type, Predicate holds) {
  AxisSet set;
  for (int a = 0; a < mesh.count(); ++a)
    if (mesh[a].size > 1 && holds(type.places[static_cast<std::size_t>(a)])) set = set | AxisSet(a);
  return set;
}

}  // namespace

AxisSet sharded_axes(const MeshAxes& mesh, const ValueType& type, int dim) {
  return axes_where(mesh, type, [&](Placement p) { return p.is_sharded(dim); });
}

AxisSet sharded_axes(const MeshAxes& mesh, const ValueType& type) {
  return axes_where(mesh, type, [](Placement p) { return p.is_sharded(); });
}

AxisSet partial_axes(const MeshAxes& mesh, const ValueType& type) {
  return axes_where(mesh, type, [](Placement p) { return p.is_partial_sum(); });
}

Shape global_shape(const MeshAxes& mesh, const ValueType& type) {
  Shape shape = type.shape;
  for (int dim = 0; dim < shape.rank(); ++dim) shape[dim] *= mesh.size(sharded_axes(mesh, type, dim));
  return shape;
}

std::int64_t shard_offset(const MeshAxes& mesh, const ValueType& type, int dim) {
  return mesh.index(sharded_axes(mesh, type, dim)) * type.shape[dim];
}

ValueType local_type(const MeshAxes& mesh, const std::string& what, DType dtype, const Shape& global,
                     const Placements& places) {
  ValueType type{dtype, global, places};
  for (int a = 0; a < mesh.count(); ++a)
    if (mesh[a].size == 1) type.places[static_cast<std::size_t>(a)] = Placement::replicated();
  for (int dim = 0; dim < global.rank(); ++dim) {
    const AxisSet axes = sharded_axes(mesh, type, dim);
    const int parts = mesh.size(axes);
    if (global[dim] % parts != 0)
      throw ShapeError(fmt::format("{}: dim {} of {} is {}, which {} ranks over {} cannot share equally ({} % {} = {})",
                                   what, dim, global.str(), global[dim], parts, mesh.label(axes), global[dim], parts,
                                   global[dim] % parts));
    type.shape[dim] = global[dim] / parts;
  }
  return type;
}

std::string describe(const MeshAxes& mesh, const ValueType& type) {
  std::string text = fmt::format("{}{}", name_of(type.dtype), type.shape.str());
  for (int a = 0; a < mesh.count(); ++a) {
    const Placement place = type.places[static_cast<std::size_t>(a)];
    if (!place.is_replicated()) text += fmt::format(" {}={}", mesh[a].name, place.str());
  }
  return text;
}

}  // namespace annulus
