#include "runtime/ops/embed.h"

#include <fmt/format.h>

namespace annulus {

Placed Embed::place(const MeshAxes&, int, AxisPlacements inputs, Types) const {
  using namespace placements;
  if (inputs[1].laid_out) return std::nullopt;  // a shard of the table is known by its first id
  return match(inputs, {{{R, R}, {R}}, {{R, S0}, {P}}, {{S0, R}, {S0}}});
}

std::vector<ValueType> Embed::infer(const MeshAxes&, Types inputs) const {
  require_inputs(inputs, 2);
  require(inputs[0].dtype == DType::i32 && inputs[0].shape.rank() == 1, "ids must be a vector of i32");
  require(inputs[1].shape.rank() == 2, "an embedding table has 2 dims");
  return {{inputs[1].dtype, {inputs[0].shape[0], inputs[1].shape[1]}, {}}};
}

void Embed::gradient(GradientContext& context) const {
  context.give(
      1, context.emit(std::make_shared<EmbedGrad>(offset_), {context.input(0), context.input(1), context.gradient()})
             .front());
}

Work Embed::work(Types inputs, Types outputs) const {
  Work work = streaming_work(inputs.first(1), outputs);
  work.bytes_read += work.bytes_written;
  return work;
}

Placed EmbedGrad::place(const MeshAxes&, int, AxisPlacements inputs, Types) const {
  using namespace placements;
  if (inputs[1].laid_out) return std::nullopt;
  return match(inputs, {{{R, R, R}, {R}}, {{R, S0, R}, {S0}}, {{S0, R, S0}, {P}}, {{R, R, P}, {P}}});
}

std::vector<ValueType> EmbedGrad::infer(const MeshAxes&, Types inputs) const {
  require_inputs(inputs, 3);
  require(inputs[2].shape == Shape({inputs[0].shape[0], inputs[1].shape[1]}),
          "the gradient does not fit ids and table");
  return {{inputs[1].dtype, inputs[1].shape, {}}};
}

void EmbedGrad::gradient(GradientContext&) const { not_differentiable(*this); }
Work EmbedGrad::work(Types inputs, Types outputs) const {
  const std::vector<ValueType> read{inputs[0], inputs[2]};
  return streaming_work(read, outputs);
}

}  // namespace annulus
