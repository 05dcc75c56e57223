#pragma once

#include <functional>
#include <random>
#include <string>
#include <vector>

#include "runtime/ops/op_table.h"

namespace annulus::testing {

using Numbers = std::vector<double>;

/// Random sizes and numbers of one run of a test or benchmark.
class Draw {
 public:
  /// `multiple`: sizes are multiples of it; 1 draws many ones and odd numbers.
  Draw(std::uint64_t seed, std::int64_t multiple) : engine_(seed), multiple_(multiple) {}

  std::int64_t between(std::int64_t first, std::int64_t last) {
    return std::uniform_int_distribution<std::int64_t>(first, last)(engine_);
  }
  /// A size of about `most` at most.
  std::int64_t size(std::int64_t most) {
    if (multiple_ > 1) return multiple_ * between(1, std::max<std::int64_t>(1, most / multiple_));
    return between(0, 4) == 0 ? 1 : between(1, most);
  }
  double normal() { return std::normal_distribution<>()(engine_); }
  double uniform(double from, double to) { return std::uniform_real_distribution<>(from, to)(engine_); }

 private:
  std::mt19937_64 engine_;
  std::int64_t multiple_;
};

/// A whole operand: what one rank would hold.
struct OpInput {
  DType dtype = DType::f64;
  Shape shape;
  Numbers values;
  bool differentiable = false;  ///< the op's gradient rule gives a gradient for it
};

/// An op with operands.
struct OpCase {
  std::string label;
  std::vector<OpInput> inputs;
  /// The op as a rank records it for its local operands: offsets and the like follow from their placements.
  std::function<OpPointer(const MeshAxes&, OpDefinition::Types)> make;
  std::int64_t sequences = 1;  ///< the rows are this many sequences, each laid out over a ring by itself
};

/// Draws operands, with floats of `dtype`.
struct OpOperands {
  Draw& draw;
  DType dtype = DType::f64;
  /// Where attention's axes are on the mesh.
  AttentionAxes attention_axes = {};

  template <class Make>
  static std::function<OpPointer(const MeshAxes&, OpDefinition::Types)> always(Make make) {
    return [make](const MeshAxes&, OpDefinition::Types) -> OpPointer { return make(); };
  }
  template <class Kind, class... Arguments>
  static auto plain(Arguments... arguments) {
    return always([=] { return std::make_shared<Kind>(arguments...); });
  }

  OpInput numbers(Shape shape, double mean = 0) {
    OpInput input{dtype, shape, Numbers(static_cast<std::size_t>(shape.elements())), true};
    for (double& x : input.values) x = mean + draw.normal();
    return input;
  }
  /// Of the type of sums and statistics.
  OpInput wide_numbers(Shape shape) {
    OpInput input = numbers(shape);
    input.dtype = wide(dtype);
    return input;
  }
  OpInput wide_constant(Shape shape) {
    OpInput input = wide_numbers(shape);
    input.differentiable = false;
    return input;
  }
  OpInput between(Shape shape, double from, double to, DType type) {
    OpInput input{type, shape, Numbers(static_cast<std::size_t>(shape.elements())), false};
    for (double& x : input.values) x = draw.uniform(from, to);
    return input;
  }
  OpInput constant(Shape shape) {
    OpInput input = numbers(shape);
    input.differentiable = false;
    return input;
  }
  OpInput ids(Shape shape, std::int64_t last) {
    OpInput input{DType::i32, shape, Numbers(static_cast<std::size_t>(shape.elements())), false};
    for (double& x : input.values) x = static_cast<double>(draw.between(0, last));
    return input;
  }
  OpInput step() { return ids({1}, 1000); }
  DropoutMask mask(double rate) { return {rate, static_cast<std::uint64_t>(draw.between(0, 99)), 5}; }
};

}  // namespace annulus::testing
