// What is known of the parameters of a recorded step.
#include "model/parameters.h"

#include <gtest/gtest.h>

#include "model/train_step.h"

namespace annulus {
namespace {

TEST(Parameters, WeightsAndEmbeddingsDecayBiasesAndNormsDoNot) {
  StepOptions options;
  options.model.layers = 1;
  options.model.hidden = options.model.ffn = 8;
  options.model.heads = options.model.kv_heads = 2;
  options.model.head_dim = options.model.block_size = options.sequence_length = 4;
  options.model.vocabulary = 5;
  options.micro_sequences = 1;
  const TrainStep step = record_train_step(make_mesh({}, 0), options);
  int decaying = 0;
  for (const Parameter& parameter : step.parameters) {
    const bool expected = parameter.name.ends_with(".weight") || parameter.name.starts_with("embedding.");
    EXPECT_EQ(parameter.decay == WeightDecay::on, expected) << parameter.name;
    decaying += expected;
  }
  EXPECT_EQ(decaying, 7);
  EXPECT_EQ(step.parameters.size(), 18u);
}

}  // namespace
}  // namespace annulus
