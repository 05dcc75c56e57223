#include "model/layers.h"

#include <cmath>

namespace annulus {
namespace {

ValueId bias(ModelContext& context, ValueId x, const Shape& weight, const Placements& places) {
  Shape shape;
  for (int dim = 1; dim < weight.rank(); ++dim) shape.append(weight[dim]);
  return context.recorder.add_bias(x, context.parameters.get("bias", shape, {places, {}, 0}));
}

}  // namespace

ValueId column_linear(ModelContext& context, const std::string& name, ValueId x, const Shape& weight, AxisSet axes) {
  const Scope scope(context.recorder.program(), name);
  const int last = weight.rank() - 1;
  const Initializer normal{Initializer::Kind::normal, context.config.initial_std};
  const ValueId w = context.parameters.get("weight", weight, {sharded_over(axes, last), normal, 0, WeightDecay::on});
  return bias(context, context.recorder.matmul(x, w), weight, sharded_over(axes, last - 1));
}

ValueId row_linear(ModelContext& context, const std::string& name, ValueId x, const Shape& weight) {
  const Scope scope(context.recorder.program(), name);
  // Layers that write to the residual stream begin smaller, by the root of their number (GPT-2).
  const double std = context.config.initial_std / std::sqrt(2.0 * static_cast<double>(context.config.layers));
  const ValueId w = context.parameters.get(
      "weight", weight, {sharded_over(mesh_axis::kTensor, 0), {Initializer::Kind::normal, std}, 0, WeightDecay::on});
  return bias(context, context.tensor_parallel.leave(context.recorder.matmul(x, w)), weight, {});
}

ValueId norm(ModelContext& context, const std::string& name, ValueId x) {
  const Scope scope(context.recorder.program(), name);
  const Shape shape{context.config.hidden};
  const ValueId gamma = context.parameters.get("gamma", shape, {{}, {Initializer::Kind::ones}, 0});
  const ValueId beta = context.parameters.get("beta", shape, {});
  return context.recorder.layer_norm(x, gamma, beta, context.config.layer_norm_epsilon);
}

ValueId attention_layer(ModelContext& context, ValueId x) {
  const ModelConfig& config = context.config;
  const std::int64_t D = config.hidden, query = config.heads * config.head_dim, key = config.kv_heads * config.head_dim;
  const ValueId h = context.tensor_parallel.enter(x);
  const ValueId q = column_linear(context, "query", h, {D, query}, mesh_axis::kTensor);
  const ValueId kv = column_linear(context, "key_value", h, {D, 2, key}, AxisSet(mesh_axis::tk));
  const AttentionAxes axes{AxisSet(mesh_axis::dp), AxisSet(mesh_axis::cp), AxisSet(mesh_axis::tr)};
  const auto attended =
      context.recorder.attention(q, kv, context.row_ids, context.step, {config.head_dim, context.sequences}, axes,
                                 context.rate(config.dropout.attention), context.seed);
  return context.dropout_between(row_linear(context, "output", attended.out, {query, D}), config.dropout.residual);
}

ValueId mlp_layer(ModelContext& context, ValueId x) {
  const std::int64_t D = context.config.hidden, F = context.config.ffn;
  const ValueId h = context.tensor_parallel.enter(x);
  const ValueId up = column_linear(context, "up", h, {D, F}, mesh_axis::kTensor);
  const ValueId down = row_linear(context, "down", context.recorder.gelu(up, context.config.activation), {F, D});
  return context.dropout_between(down, context.config.dropout.residual);
}

}  // namespace annulus
