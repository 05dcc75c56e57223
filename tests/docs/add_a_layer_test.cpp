// The layer that docs/add-a-layer.md shows is compiled from that page, and recorded and differentiated on several
// meshes: what its page promises (reductions that nobody wrote, refusal of a wrong sharding) is looked up in the
// program.
#include <gtest/gtest.h>

#include "model/layers.h"
#include "parallel/gradient_reduction.h"

namespace annulus {

ValueId gated_mlp_layer(ModelContext& context, ValueId x);

namespace {

ModelConfig small_model() {
  ModelConfig config;
  config.hidden = 8;
  config.ffn = 16;
  config.vocabulary = 12;
  return config;
}

/// Records norm, gated MLP, and a loss over D as if it were a vocabulary, on `shape`; returns the reduced gradients'
/// program.
Program record(const MeshShape& shape, SequenceParallel sequence_parallel, CollectiveFilter filter = {}) {
  Program program(make_mesh(shape, 0));
  Recorder recorder(program, std::move(filter));
  ParameterTable parameters(program, DType::f64);
  const ModelConfig config = small_model();
  ModelContext context{recorder, parameters, TensorParallel(recorder, sequence_parallel), config};
  Placements rows{};
  rows[mesh_axis::dp] = Placement::sharded(0);
  const std::int64_t count = 8 * shape.dp;
  const auto input = [&](const char* name, DType dtype) {
    return program.leaf(name, Role::input, dtype, {count}, rows);
  };
  const ValueId ids = input("ids", DType::i32), weights = input("weights", DType::f64);
  const ValueId table =
      parameters.get("table", {config.vocabulary, config.hidden}, {sharded_over(mesh_axis::kTensor, 0), {}, 0});
  ValueId x = context.tensor_parallel.leave(recorder.embed(ids, table));
  {
    const Scope scope(program, "mlp");
    x = recorder.add(x, gated_mlp_layer(context, norm(context, "norm", x)));
  }
  const ValueId logits = recorder.matmul_transposed(context.tensor_parallel.enter(norm(context, "final", x)), table);
  const ValueId loss = vocabulary_parallel_loss(recorder, logits, ids, weights, config.vocabulary);
  auto gradients = differentiate(program, loss, 0, gradient_ops());
  gradients = reduce_gradients(program, gradients, 1);
  EXPECT_EQ(gradients.size(), parameters.all().size());
  for (const auto& [parameter, gradient] : gradients)
    EXPECT_EQ(program.type(gradient).places, program.type(parameter).places);
  return program;
}

int count(const Program& program, CollectiveKind kind, Phase phase) {
  int found = 0;
  for (const Op& op : program.ops()) {
    const auto call = op.definition->collective();
    found += call && call->kind == kind && op.phase == phase && op.scope.starts_with("mlp");
  }
  return found;
}

TEST(AddALayer, GradientOfTheSharedInputIsSummedOnce) {
  EXPECT_EQ(count(record({.tp = 2}, SequenceParallel::off), CollectiveKind::all_reduce, Phase::backward), 1);
  EXPECT_EQ(count(record({.tp = 2}, SequenceParallel::on), CollectiveKind::reduce_scatter, Phase::backward), 1);
  EXPECT_EQ(count(record({.dp = 2, .tp = 4}, SequenceParallel::on), CollectiveKind::reduce_scatter, Phase::backward),
            1);
}

TEST(AddALayer, WithoutItsReductionItIsRefused) {
  int seen = 0;  // the first all-reduce is the embedding's, the second the layer's own
  const auto drop = [&](const CollectiveRequest& request) {
    return ++seen == 2 ? std::nullopt : std::optional(request);
  };
  try {
    record({.tp = 2}, SequenceParallel::off, drop);
    FAIL() << "a layer without its reduction was recorded";
  } catch (const PlacementError& error) {
    EXPECT_NE(std::string(error.what()).find("partial(sum)"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("mlp.down: add_bias over axis tk"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace annulus
