#include "runtime/program/differentiate.h"

#include <fmt/format.h>

#include "runtime/core/error.h"

namespace annulus {
namespace {

/// The contributions to one value's gradient: one sum per placement in which contributions arrived.
using Contributions = std::map<std::string, ValueId>;

class Differentiator {
 public:
  Differentiator(Program& program, const GradientOps& ops) : program_(program), ops_(ops), mesh_(program.mesh()) {}

  std::map<ValueId, ValueId> run(ValueId loss, int first_op) {
    const int last_op = program_.op_count();
    for (int i = last_op - 1; i >= first_op; --i) {
      const Op op = program_.op(i);  // a copy: recording moves the list
      program_.continue_as(op);
      program_.set_phase(Phase::backward);
      if (op.outputs.front() == loss) {
        differentiate_op(op, kNoValue);
      } else if (parts_.contains(op.outputs.front())) {
        for (ValueId gradient : settle(op)) differentiate_op(op, gradient);
      }
    }
    std::map<ValueId, ValueId> gradients;
    for (auto& [value, contributions] : parts_)
      if (program_.value(value).role == Role::parameter) gradients[value] = settle_parameter(contributions);
    return gradients;
  }

 private:
  void differentiate_op(const Op& op, ValueId gradient) {
    std::vector<ValueId> gradients(op.inputs.size(), kNoValue);
    GradientContext context(program_, op, gradient, gradients);
    op.definition->gradient(context);
    for (std::size_t i = 0; i < gradients.size(); ++i)
      if (gradients[i] != kNoValue && program_.value(op.inputs[i]).role != Role::input)
        give(op.inputs[i], gradients[i]);
  }

  void give(ValueId value, ValueId gradient) {
    const DType dtype = program_.type(gradient).dtype;
    if (program_.value(value).role == Role::parameter && dtype != wide(dtype))
      gradient = ops_.cast(program_, gradient, wide(dtype));
    std::string key;
    for (int a = 0; a < mesh_.count(); ++a) key += place(gradient, a).str() + ";";
    const auto [at, is_new] = parts_[value].try_emplace(key, gradient);
    if (!is_new) at->second = ops_.add(program_, at->second, gradient);
  }

  Placement place(ValueId value, int axis) const { return program_.type(value).places[static_cast<std::size_t>(axis)]; }

  /// Placement that the gradient of a value with placement `p` must have in the end.
  static Placement dual(Placement p) { return p.is_partial() ? Placement::replicated() : p; }

  void check(ValueId value, ValueId gradient) const {
    for (int a = 0; a < mesh_.count(); ++a) {
      if (mesh_[a].size == 1) continue;
      const Placement want = dual(place(value, a)), got = place(gradient, a);
      if (got == want || (got.is_partial_sum() && want.is_replicated())) continue;
      throw PlacementError(
          fmt::format("gradient of {} ({}) over axis {}: it must be {}, and arrives as {}; no sum over ranks mends "
                      "this, so a collective "
                      "of the forward pass is missing or wrong",
                      program_.value(value).name, place(value, a).str(), mesh_[a].name, want.str(), got.str()));
    }
  }

  /// Axes over which `gradient` must still be summed to become the gradient of `value`.
  AxisSet owed(ValueId value, ValueId gradient) const {
    AxisSet axes;
    for (int a = 0; a < mesh_.count(); ++a)
      if (mesh_[a].size > 1 && place(gradient, a).is_partial_sum() && dual(place(value, a)).is_replicated())
        axes = axes | AxisSet(a);
    return axes;
  }

  /// What flows on into the op that made a value: one gradient, or one per placement behind an all-gather.
  std::vector<ValueId> settle(const Op& op) {
    const ValueId value = op.outputs.front();
    const Contributions found = std::move(parts_.extract(value).mapped());
    const auto call = op.definition->collective();
    const bool gathered = call && call->kind == CollectiveKind::all_gather;
    const bool passes = op.definition->is_linear() && found.size() == 1;
    std::vector<ValueId> settled;
    for (const auto& [key, gradient] : found) {
      check(value, gradient);
      AxisSet over = owed(value, gradient);
      if (gathered) over = over - call->axes;
      if (passes) over = AxisSet();
      settled.push_back(over.empty() ? gradient : ops_.all_reduce(program_, gradient, over));
    }
    if (gathered) return settled;
    ValueId total = settled.front();
    for (std::size_t i = 1; i < settled.size(); ++i) total = ops_.add(program_, total, settled[i]);
    return {total};
  }

  /// Sums a parameter's contributions; partial stays partial where all of them are.
  ValueId settle_parameter(const Contributions& found) {
    ValueId total = kNoValue;
    for (const auto& [key, gradient] : found) {
      AxisSet over;
      for (const auto& [other_key, other] : found)
        over = over | (partial_axes(mesh_, program_.type(gradient)) - partial_axes(mesh_, program_.type(other)));
      const ValueId summand = over.empty() ? gradient : ops_.all_reduce(program_, gradient, over);
      total = total == kNoValue ? summand : ops_.add(program_, total, summand);
    }
    return total;
  }

  Program& program_;
  const GradientOps& ops_;
  const MeshAxes& mesh_;
  std::map<ValueId, Contributions> parts_;
};

}  // namespace

std::map<ValueId, ValueId> differentiate(Program& program, ValueId loss, int first_op, const GradientOps& ops) {
  const std::string scope = program.scope();
  auto gradients = Differentiator(program, ops).run(loss, first_op);
  program.set_scope(scope);
  for (const auto& [parameter, gradient] : gradients) {
    const ValueType& want = program.type(parameter);
    if (program.type(gradient).shape != want.shape)
      throw InternalError("gradient of " + program.value(parameter).name + " has another shape than the parameter");
    for (int a = 0; a < program.mesh().count(); ++a) {
      const Placement got = program.type(gradient).places[static_cast<std::size_t>(a)];
      const Placement expected = want.places[static_cast<std::size_t>(a)];
      if (got != expected && !(got.is_partial_sum() && expected.is_replicated()))
        throw PlacementError(fmt::format("gradient of parameter {} over axis {} is {} where the parameter is {}",
                                         program.value(parameter).name, program.mesh()[a].name, got.str(),
                                         expected.str()));
    }
  }
  return gradients;
}

}  // namespace annulus
