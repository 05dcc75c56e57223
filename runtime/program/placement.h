#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/core/dtype.h"
#include "runtime/core/shape.h"
#include "runtime/program/axes.h"

namespace annulus {

/// How a value lies over the ranks of one mesh axis.
///
/// *replicated*: the same on all. *sharded(dim)*: each rank holds an equal part of `dim`, in rank order; with
/// `laid_out` the parts follow a ring layout, and only what knows the layout may join them. *partial*: the value is the
/// sum (or maximum) of what the ranks hold.
struct Placement {
  enum class Kind : std::uint8_t { replicated, sharded, partial_sum, partial_max };

  Kind kind = Kind::replicated;
  std::int8_t dim = 0;
  bool laid_out = false;

  static constexpr Placement replicated() { return {}; }
  static constexpr Placement sharded(int dim) { return {Kind::sharded, static_cast<std::int8_t>(dim), false}; }
  static constexpr Placement laid_out_rows() { return {Kind::sharded, 0, true}; }
  static constexpr Placement partial_sum() { return {Kind::partial_sum, 0, false}; }
  static constexpr Placement partial_max() { return {Kind::partial_max, 0, false}; }

  constexpr bool is_replicated() const { return kind == Kind::replicated; }
  constexpr bool is_sharded() const { return kind == Kind::sharded; }
  constexpr bool is_sharded(int along) const { return kind == Kind::sharded && dim == along; }
  constexpr bool is_partial_sum() const { return kind == Kind::partial_sum; }
  constexpr bool is_partial_max() const { return kind == Kind::partial_max; }
  constexpr bool is_partial() const { return is_partial_sum() || is_partial_max(); }

  constexpr bool operator==(const Placement&) const = default;
  /// As in `sharded(0)` or `partial(sum)`.
  std::string str() const;
};

using Placements = std::array<Placement, MeshAxes::kMaxAxes>;

/// What is known of a value while the program is built: element type, local shape, and its placement on every axis.
struct ValueType {
  DType dtype = DType::f32;
  Shape shape;  ///< local
  Placements places{};

  std::int64_t bytes() const { return shape.elements() * size_of(dtype); }
  bool operator==(const ValueType&) const = default;
};

/// The live axes along which `type` is sharded in `dim`.
AxisSet sharded_axes(const MeshAxes& mesh, const ValueType& type, int dim);
/// The same, in whatever dim.
AxisSet sharded_axes(const MeshAxes& mesh, const ValueType& type);
/// The live axes on which `type` is partial(sum).
AxisSet partial_axes(const MeshAxes& mesh, const ValueType& type);
/// Shape of the whole value that the shards of `type` make up.
Shape global_shape(const MeshAxes& mesh, const ValueType& type);
/// Global index of this rank's first element along `dim` (mixed radix over the axes that shard it, outer to inner).
std::int64_t shard_offset(const MeshAxes& mesh, const ValueType& type, int dim);
/// Local type of a value of `global` shape. Throws ShapeError, naming `what`, where a dim does not divide.
ValueType local_type(const MeshAxes& mesh, const std::string& what, DType dtype, const Shape& global,
                     const Placements& places);
/// As in `f32[64, 32] tp=sharded(1)`.
std::string describe(const MeshAxes& mesh, const ValueType& type);

}  // namespace annulus
