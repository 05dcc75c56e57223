#include "model/parameters.h"

#include <algorithm>
#include <cstring>
#include <functional>

#include "runtime/core/random.h"

namespace annulus {
namespace {

/// Runs of elements that lie side by side both in a shard and in the whole value.
std::int64_t runs_of(const ValueType& type) { return type.shape.elements(0, type.shape.rank() - 1); }
std::int64_t run_length(const ValueType& type) { return type.shape[type.shape.rank() - 1]; }

/// Calls `run(local, global, count)` for runs [first, last) of this rank's shard: element offsets, count elements,
/// padding left out. Works for any sharding of any dims.
void for_each_run(const MeshAxes& mesh, const Parameter& parameter, const ValueType& type, std::int64_t first,
                  std::int64_t last, const std::function<void(std::int64_t, std::int64_t, std::int64_t)>& run) {
  const int rank = type.shape.rank();
  Shape index = type.shape;
  for (int dim = 0; dim < rank; ++dim) index[dim] = 0;
  std::int64_t offsets[Shape::kMaxRank];
  for (int dim = 0; dim < rank; ++dim) offsets[dim] = shard_offset(mesh, type, dim);
  const std::int64_t length = run_length(type);
  for (std::int64_t r = first; r < last; ++r) {
    std::int64_t left = r, global = 0;
    for (int dim = rank - 2; dim >= 0; --dim) {
      index[dim] = left % type.shape[dim];
      left /= type.shape[dim];
    }
    bool padding = false;
    for (int dim = 0; dim + 1 < rank; ++dim) {
      const std::int64_t at = index[dim] + offsets[dim];
      padding = padding || at >= parameter.shape[dim];
      global = global * parameter.shape[dim] + at;
    }
    const std::int64_t count = std::clamp<std::int64_t>(parameter.shape[rank - 1] - offsets[rank - 1], 0, length);
    if (!padding && count > 0) run(r * length, global * parameter.shape[rank - 1] + offsets[rank - 1], count);
  }
}

}  // namespace

ValueId ParameterTable::get(const std::string& name, const Shape& shape, const Options& options) {
  const std::string full = program_.scope().empty() ? name : program_.scope() + "." + name;
  Shape padded = shape;
  if (options.padded_rows != 0) padded[0] = options.padded_rows;
  const ValueId value = program_.leaf(full, Role::parameter, dtype_, padded, options.places);
  const bool known =
      std::any_of(parameters_.begin(), parameters_.end(), [&](const Parameter& p) { return p.value == value; });
  if (!known) parameters_.push_back({full, value, shape, padded[0], options.initializer, options.decay});
  return value;
}

void initial_values(const MeshAxes& mesh, const Parameter& parameter, const ValueType& type, std::uint64_t seed,
                    const InitialPiece& give) {
  constexpr std::int64_t kPiece = 1 << 18;  // elements, about
  const PhiloxKey key = stream_key(seed, "initial." + parameter.name);
  const auto value = [&](std::int64_t index) {
    switch (parameter.initializer.kind) {
      case Initializer::Kind::zeros:
        return 0.0;
      case Initializer::Kind::ones:
        return 1.0;
      case Initializer::Kind::normal:
        return parameter.initializer.std * normal(key, static_cast<std::uint64_t>(index));
    }
    throw InternalError("unknown kind of initial value");
  };
  const std::int64_t length = run_length(type), at_once = std::max<std::int64_t>(1, kPiece / length);
  std::vector<double> values;
  for (std::int64_t first = 0; first < runs_of(type); first += at_once) {
    const std::int64_t last = std::min(first + at_once, runs_of(type));
    values.assign(static_cast<std::size_t>((last - first) * length), 0.0);
    for_each_run(mesh, parameter, type, first, last, [&](std::int64_t local, std::int64_t global, std::int64_t count) {
      for (std::int64_t i = 0; i < count; ++i)
        values[static_cast<std::size_t>(local - first * length + i)] = value(global + i);
    });
    give(first * length, values);
  }
}

void take_shard(const MeshAxes& mesh, const Parameter& parameter, const ValueType& type, const std::byte* whole,
                std::byte* local) {
  const std::int64_t size = size_of(type.dtype);
  std::memset(local, 0, static_cast<std::size_t>(type.bytes()));
  for_each_run(mesh, parameter, type, 0, runs_of(type), [&](std::int64_t to, std::int64_t from, std::int64_t count) {
    std::memcpy(local + to * size, whole + from * size, static_cast<std::size_t>(count * size));
  });
}

void put_shard(const MeshAxes& mesh, const Parameter& parameter, const ValueType& type, const std::byte* local,
               std::int64_t first, std::int64_t count, std::byte* whole) {
  if (count == 0) return;
  const std::int64_t size = size_of(type.dtype), length = run_length(type), last = first + count;
  for_each_run(mesh, parameter, type, first / length, (last + length - 1) / length,
               [&](std::int64_t from, std::int64_t to, std::int64_t run) {
                 const std::int64_t begin = std::max(from, first), end = std::min(from + run, last);
                 if (end <= begin) return;
                 std::memcpy(whole + (to + begin - from) * size, local + (begin - first) * size,
                             static_cast<std::size_t>((end - begin) * size));
               });
}

}  // namespace annulus
