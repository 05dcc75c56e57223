#pragma once

#include <functional>
#include <map>
#include <vector>

#include "runtime/program/program.h"

namespace annulus {

/// The few ops that differentiation records itself; given by runtime/ops, so that program/ names no kind.
struct GradientOps {
  std::function<ValueId(Program&, ValueId, ValueId)> add;
  std::function<ValueId(Program&, ValueId, AxisSet)> all_reduce;  ///< sum
  std::function<ValueId(Program&, ValueId, DType)> cast;
};

/// What a gradient rule sees of its op, and where it leaves the gradients of the op's inputs.
class GradientContext {
 public:
  GradientContext(Program& program, const Op& op, ValueId gradient, std::vector<ValueId>& gradients)
      : program_(program), op_(op), gradient_(gradient), gradients_(gradients) {}

  Program& program() { return program_; }
  const MeshAxes& mesh() const { return program_.mesh(); }
  ValueId input(int i) const { return op_.inputs[static_cast<std::size_t>(i)]; }
  int input_count() const { return static_cast<int>(op_.inputs.size()); }
  ValueId output(int i = 0) const { return op_.outputs[static_cast<std::size_t>(i)]; }
  const ValueType& type(ValueId id) const { return program_.type(id); }
  /// Whether an input is a parameter, whose gradient is wide.
  bool is_parameter(int i) const { return program_.value(input(i)).role == Role::parameter; }
  /// Gradient of the first output, or kNoValue for the loss itself, whose gradient is 1.
  ValueId gradient() const { return gradient_; }

  std::vector<ValueId> emit(OpPointer definition, std::vector<ValueId> inputs) {
    return program_.emit(std::move(definition), std::move(inputs));
  }
  void give(int input, ValueId gradient) { gradients_[static_cast<std::size_t>(input)] = gradient; }

 private:
  Program& program_;
  const Op& op_;
  ValueId gradient_;
  std::vector<ValueId>& gradients_;
};

/// Records the backward pass of the ops [first_op, now) from `loss`, and returns every parameter's gradient, still
/// unreduced: replicated and sharded as the parameter, partial where its ranks saw different rows.
///
/// The gradient of a value has the value's dual placement: sharded for sharded, replicated for partial, replicated for
/// replicated. Contributions are brought to one placement before they are added. Where *partial* remains for a
/// replicated value the sum is recorded: as a reduce-scatter behind an all-gather; later, behind a kind that is linear;
/// once per step, by the caller, for a parameter; at once for any other activation (Megatron's f, arXiv 1909.08053
/// section 3). Where values are halves, gradients of activations are, and those of parameters are wide from the op on
/// that makes them. Throws PlacementError where no sum mends a mismatch.
std::map<ValueId, ValueId> differentiate(Program& program, ValueId loss, int first_op, const GradientOps& ops);

}  // namespace annulus
