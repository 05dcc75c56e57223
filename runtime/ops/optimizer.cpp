#include "runtime/ops/optimizer.h"

#include <fmt/format.h>

#include <algorithm>

namespace annulus {

Placed SumSquares::place(const MeshAxes&, int, AxisPlacements inputs, Types) const {
  if (inputs[0].is_replicated()) return {{inputs[0]}};
  if (inputs[0].is_sharded()) return {{Placement::partial_sum()}};
  return std::nullopt;
}
std::vector<ValueType> SumSquares::infer(const MeshAxes&, Types inputs) const {
  require_inputs(inputs, 1);
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
  std::vector<Alias> aliases{{0, 0}, {1, 2}, {2, 3}};
  if (working_copy_ == WorkingCopy::rounded) aliases.push_back({3, 6});
  return aliases;
}
Placed AdamW::place(const MeshAxes&, int, AxisPlacements inputs, Types) const {
  if (!inputs[4].is_replicated() || !inputs[5].is_replicated()) return std::nullopt;
  const auto copy = inputs.subspan(6);
  if (!copy.empty() && copy[0] != inputs[0]) return std::nullopt;
  return all_alike(inputs.first(4), 3 + copy.size());
}
std::vector<ValueType> AdamW::infer(const MeshAxes&, Types inputs) const {
  const bool copies = working_copy_ == WorkingCopy::rounded;
  require_inputs(inputs, copies ? 7 : 6);
  require(inputs[0].dtype == wide(inputs[0].dtype), "a half is no master weight");
  for (int i = 1; i < 4; ++i) {
    const ValueType& type = inputs[static_cast<std::size_t>(i)];
    require(type.shape == inputs[0].shape && type.dtype == inputs[0].dtype,
            "gradient or moment does not fit the weight");
  }
  require(inputs[4].shape == Shape({4}) && inputs[5].shape == Shape({4}), "clip and hyper have 4 elements");
  std::vector<ValueType> outputs(3, {inputs[0].dtype, inputs[0].shape, {}});
  if (copies) {
    const ValueType& copy = inputs[6];
    require(is_half(copy.dtype) && copy.shape == inputs[0].shape, "a working copy is a half of the weight's shape");
    outputs.push_back({copy.dtype, copy.shape, {}});
  }
  return outputs;
}
void AdamW::gradient(GradientContext&) const { not_differentiable(*this); }
Work AdamW::work(Types inputs, Types outputs) const { return streaming_work(inputs.first(6), outputs); }

}  // namespace annulus
