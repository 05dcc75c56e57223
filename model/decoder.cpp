#include "model/decoder.h"

#include <fmt/format.h>

namespace annulus {

BatchInputs declare_inputs(Program& program, DType dtype, std::int64_t sequences, std::int64_t sequence_length) {
  Placements rows{};
  rows[mesh_axis::dp] = Placement::sharded(0);
  rows[mesh_axis::cp] = Placement::laid_out_rows();
  const std::int64_t count = sequences * program.mesh()[mesh_axis::dp].size * sequence_length;
  const auto input = [&](const char* name, DType type, const Shape& shape, const Placements& places) {
    return program.leaf(std::string("inputs.") + name, Role::input, type, shape, places);
  };
  BatchInputs inputs;
  inputs.ids = input("ids", DType::i32, {count}, rows);
  inputs.targets = input("targets", DType::i32, {count}, rows);
  inputs.weights = input("weights", wide(dtype), {count}, rows);
  if (scales_loss(dtype)) inputs.gradient_weights = input("gradient_weights", wide(dtype), {count}, rows);
  inputs.positions = input("positions", DType::i32, {count}, rows);
  inputs.row_ids = input("row_ids", DType::i32, {count, 2}, rows);
  inputs.step = input("step", DType::i32, {1}, {});
  return inputs;
}

ValueId decoder_loss(ModelContext& context, const BatchInputs& inputs) {
  Recorder& recorder = context.recorder;
  const ModelConfig& config = context.config;
  TensorParallel& tp = context.tensor_parallel;
  context.step = inputs.step;
  context.row_ids = inputs.row_ids;
  context.row_ids_between = tp.rows(inputs.row_ids);

  ValueId x = kNoValue, table = kNoValue;
  {
    const Scope scope(recorder.program(), "embedding");
    const Initializer normal{Initializer::Kind::normal, config.initial_std};
    const std::int64_t padded =
        padded_vocabulary(config.vocabulary, config.vocabulary_padding, recorder.mesh().size(mesh_axis::kTensor));
    table = context.parameters.get("tokens", {config.vocabulary, config.hidden},
                                   {sharded_over(mesh_axis::kTensor, 0), normal, padded, WeightDecay::on});
    const ValueId positions =
        context.parameters.get("positions", {config.block_size, config.hidden}, {{}, normal, 0, WeightDecay::on});
    x = recorder.add(tp.leave(recorder.embed(inputs.ids, table)), recorder.embed(tp.rows(inputs.positions), positions));
    x = context.dropout_between(x, config.dropout.embedding);
  }
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    const Scope scope(recorder.program(), fmt::format("layers.{}", layer));
    const auto residual = [&](const char* name, auto&& block) {
      const Scope inner(recorder.program(), name);
      x = recorder.add(x, block(context, norm(context, "norm", x)));
    };
    residual("attention", attention_layer);
    residual("mlp", mlp_layer);
  }
  const Scope scope(recorder.program(), "head");
  const ValueId logits = recorder.matmul_transposed(tp.enter(norm(context, "norm", x)), table);
  return vocabulary_parallel_loss(recorder, logits, inputs.targets, inputs.weights, config.vocabulary,
                                  inputs.gradient_weights);
}

}  // namespace annulus
