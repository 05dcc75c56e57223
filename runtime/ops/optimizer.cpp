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

std::string Clip::attributes() const { return fmt::format("max_norm {}", max_norm_); }
Placed Clip::place(const MeshAxes&, int, AxisPlacements inputs, Types) const {
  using namespace placements;
  return match(inputs, {{{R, R}, {R}}});
}
std::vector<ValueType> Clip::infer(const MeshAxes&, Types inputs) const {
  require_inputs(inputs, 2);
  require(inputs[0].dtype == DType::f64 && inputs[0].shape == Shape({1}) && inputs[1].shape == Shape({2}),
          "sums have another shape");
  return {{DType::f64, {4}, {}}};
}
void Clip::gradient(GradientContext&) const { not_differentiable(*this); }
Work Clip::work(Types inputs, Types outputs) const { return streaming_work(inputs, outputs); }

std::string AdamW::attributes() const {
  return fmt::format("beta1 {}, beta2 {}, epsilon {}, weight_decay {}", options_.beta1, options_.beta2,
                     options_.epsilon, options_.weight_decay);
}
Placed AdamW::place(const MeshAxes&, int, AxisPlacements inputs, Types) const {
  if (!inputs[4].is_replicated() || !inputs[5].is_replicated()) return std::nullopt;
  return all_alike(inputs.first(4), 3);
}
std::vector<ValueType> AdamW::infer(const MeshAxes&, Types inputs) const {
  require_inputs(inputs, 6);
  for (int i = 1; i < 4; ++i)
    require(inputs[static_cast<std::size_t>(i)].shape == inputs[0].shape, "gradient or moment does not fit the weight");
  require(inputs[4].shape == Shape({4}) && inputs[5].shape == Shape({4}), "clip and hyper have 4 elements");
  return {{inputs[0].dtype, inputs[0].shape, {}},
          {inputs[2].dtype, inputs[0].shape, {}},
          {inputs[3].dtype, inputs[0].shape, {}}};
}
void AdamW::gradient(GradientContext&) const { not_differentiable(*this); }
Work AdamW::work(Types inputs, Types outputs) const { return streaming_work(inputs, outputs); }

}  // namespace annulus
