#include "runtime/ops/optimizer.h"

#include <fmt/format.h>

#include <algorithm>

namespace annulus {

Placed SumSquares::place(const MeshAxes&, int, AxisPlacements inputs, Types) const {
  if (std::ranges::all_of(inputs, [](Placement p) { return p.is_replicated(); })) return {{Placement::replicated()}};
  if (std::ranges::all_of(inputs, [](Placement p) { return p.is_sharded(); })) return {{Placement::partial_sum()}};
  return std::nullopt;
}
std::vector<ValueType> SumSquares::infer(const MeshAxes&, Types inputs) const {
  require(!inputs.empty(), "there is nothing to sum");
  for (const ValueType& input : inputs) require(input.dtype == inputs[0].dtype, "tensors of several element types");
  return {{DType::f64, {1}, {}}};
}
void SumSquares::gradient(GradientContext&) const { not_differentiable(*this); }
Work SumSquares::work(Types inputs, Types outputs) const { return streaming_work(inputs, outputs); }

std::string Clip::attributes() const {
  return fmt::format("max_norm {}{}", max_norm_, loss_scaling_ == LossScaling::on ? ", loss scaling" : "");
}
Placed Clip::place(const MeshAxes&, int, AxisPlacements inputs, Types) const {
  using namespace placements;
  return match(inputs, {{{R, R}, {R}}, {{R, R, R}, {R}}});
}
std::vector<ValueType> Clip::infer(const MeshAxes&, Types inputs) const {
  require_inputs(inputs, loss_scaling_ == LossScaling::on ? 3 : 2);
  for (const ValueType& scale : inputs.subspan(2))
    require(scale.dtype == DType::f64 && scale.shape == Shape({1}), "the loss scale has another shape");
  require(inputs[0].dtype == DType::f64 && inputs[0].shape == Shape({1}) && inputs[1].shape == Shape({2}),
          "sums have another shape");
  return {{DType::f64, {4}, {}}};
}
void Clip::gradient(GradientContext&) const { not_differentiable(*this); }
Work Clip::work(Types inputs, Types outputs) const { return streaming_work(inputs, outputs); }

std::string AdamW::attributes() const {
  return fmt::format("beta1 {}, beta2 {}, epsilon {}, weight_decay {}{}", options_.beta1, options_.beta2,
                     options_.epsilon, options_.weight_decay,
                     working_copy_ == WorkingCopy::rounded ? ", working copy" : "");
}
std::vector<Alias> AdamW::aliases() const {
  std::vector<Alias> aliases;
  const auto in_place = [&](std::size_t input) {
    for (std::size_t i = 0; i < weights_; ++i)
      aliases.push_back({static_cast<int>(aliases.size()), static_cast<int>(input + i)});
  };
  in_place(0);
  in_place(2 * weights_);
  in_place(3 * weights_);
  if (working_copy_ == WorkingCopy::rounded) in_place(4 * weights_ + 2);
  return aliases;
}
Placed AdamW::place(const MeshAxes&, int, AxisPlacements inputs, Types) const {
  const AxisPlacements weights = list(inputs, 0);
  const auto allowed = [](Placement p) { return p.is_replicated() || p.is_sharded(); };
  if (!std::ranges::all_of(weights, allowed)) return std::nullopt;
  if (!inputs[4 * weights_].is_replicated() || !inputs[4 * weights_ + 1].is_replicated()) return std::nullopt;
  std::vector<Placement> outputs(weights.begin(), weights.end());
  for (std::size_t other = 1; other < lists(); ++other) {
    if (!std::ranges::equal(list(inputs, other), weights)) return std::nullopt;
    if (other > 1) outputs.insert(outputs.end(), weights.begin(), weights.end());
  }
  return outputs;
}
std::vector<ValueType> AdamW::infer(const MeshAxes&, Types inputs) const {
  require_inputs(inputs, lists() * weights_ + 2);
  for (const ValueType& sums : inputs.subspan(4 * weights_, 2))
    require(sums.shape == Shape({4}), "clip and hyper have 4 elements");
  std::vector<ValueType> outputs;
  for (std::size_t which = 0; which < lists(); ++which) {
    for (std::size_t i = 0; i < weights_; ++i) {
      const ValueType &weight = inputs[i], &operand = list(inputs, which)[i];
      if (which == 4)
        require(is_half(operand.dtype) && operand.shape == weight.shape && operand.dtype == inputs.back().dtype,
                "a working copy is a half of the weight's shape");
      else
        require(operand.shape == weight.shape && operand.dtype == inputs[0].dtype,
                "a gradient or moment does not fit its weight, or weights are of several element types");
      if (which != 1) outputs.push_back({operand.dtype, operand.shape, {}});
    }
  }
  require(inputs[0].dtype == wide(inputs[0].dtype), "a half is no master weight");
  return outputs;
}
void AdamW::gradient(GradientContext&) const { not_differentiable(*this); }
Work AdamW::work(Types inputs, Types outputs) const { return streaming_work(inputs.first(4 * weights_ + 2), outputs); }

}  // namespace annulus
