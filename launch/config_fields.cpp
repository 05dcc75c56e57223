// Every setting of a run, declared once: this parses it, checks it, and documents it.
#include <nlohmann/json.hpp>

#include "launch/config_schema.h"

namespace annulus {
namespace {

constexpr Limits kAny{};
constexpr double kMostRanks = 1 << 20;
// The upper limits keep products of three sizes within 64 bits.
constexpr Limits kCount = {.minimum = 1, .maximum = 1e9};
constexpr Limits kCountOrDerived = {.minimum = 0, .maximum = 1e9};

ConfigSection model_section() {
  using C = ModelConfig;
  SectionDeclaration model(
      "model", "The decoder: GPT-2 (pre-layer-norm, learned positions, GELU, tied head, biases).",
      [](auto& config) -> auto& { return config.model; });
  model.field("layers", &C::layers, kCount, {"", "Transformer layers."});
  model.field("hidden", &C::hidden, kCount, {"", "Width of the residual stream."});
  model.field("heads", &C::heads, kCount, {"", "Query heads of a layer."});
  model.field("kv_heads", &C::kv_heads, kCountOrDerived,
              {"", "Key and value heads of a layer. 0: as many as `heads`."});
  model.field("head_dim", &C::head_dim, kCountOrDerived, {"", "Width of a head. 0: `hidden` / `heads`."});
  model.field("ffn", &C::ffn, kCountOrDerived, {"", "Width of the feed-forward layer. 0: 4 x `hidden`."});
  model.field("vocabulary", &C::vocabulary, kCountOrDerived, {"tokens", "Vocabulary. 0: that of the token file."});
  model.field("vocabulary_padding", &C::vocabulary_padding, kCount,
              {"tokens", "The vocabulary is padded, invisibly, to a multiple of this x tp."});
  model.field("block_size", &C::block_size, kCountOrDerived,
              {"tokens", "Rows of the position table, the longest sequence. 0: `batch.sequence_length`."});
  model.choice<Activation>("activation", &C::activation,
                           {{"gelu_tanh", Activation::gelu_tanh}, {"gelu_erf", Activation::gelu_erf}},
                           {"", "GELU by its tanh approximation (GPT-2's), or exact."});
  model.field("layer_norm_epsilon", &C::layer_norm_epsilon, above(0), {"", "Added to the variance in layer norms."});
  model.field(
      "initial_std", &C::initial_std, above(0),
      {"",
       "Standard deviation of initial weights; 1/sqrt(2 `layers`) of it for projections into the residual stream."});
  return model.section();
}

ConfigSection dropout_section() {
  using C = DropoutConfig;
  SectionDeclaration dropout(
      "model.dropout", "Probabilities of dropout. Its masks do not depend on the mesh.",
      [](auto& config) -> auto& { return config.model.dropout; });
  dropout.field("embedding", &C::embedding, fraction_below_one(), {"", "On the sum of token and position embeddings."});
  dropout.field("attention", &C::attention, fraction_below_one(), {"", "On attention probabilities."});
  dropout.field("residual", &C::residual, fraction_below_one(), {"", "On what attention and feed-forward layers add."});
  return dropout.section();
}

ConfigSection parallel_section() {
  using C = ParallelConfig;
  SectionDeclaration parallel(
      "parallel", "The mesh: tp x cp x dp ranks, tp innermost.", [](auto& config) -> auto& { return config.parallel; });
  const Limits ranks = {.minimum = 1, .maximum = kMostRanks};
  parallel.field("tp", &C::tp, ranks, {"ranks", "Tensor parallelism: heads, feed-forward and vocabulary are split."});
  parallel.field("cp", &C::cp, ranks, {"ranks", "Context parallelism: sequences are split, with ring attention."});
  parallel.field("dp", &C::dp, {.minimum = 0, .maximum = kMostRanks},
                 {"ranks", "Data parallelism: batches are split. 0: the ranks that tp and cp leave."});
  parallel.field("sequence_parallel", &C::sequence_parallel, kAny,
                 {"", "Between the tensor-parallel regions, activations are split by sequence over tp."});
  parallel.choice<RingLayout>(
      "layout", &C::layout,
      {{"contiguous", RingLayout::contiguous}, {"striped", RingLayout::striped}, {"zigzag", RingLayout::zigzag}},
      {"", "Which positions of a sequence a rank of the ring owns."});
  return parallel.section();
}

ConfigSection data_section() {
  using C = DataConfig;
  SectionDeclaration data(
      "data", "Token files, as `annulus tokenize` writes them ([format](token-file.md)), or llm.c's `.bin`.",
      [](auto& config) -> auto& { return config.data; });
  data.field("file", &C::file, kAny, {"", "The token file to train on."});
  data.field("validation_file", &C::validation_file, kAny, {"", "A token file to evaluate on."});
  data.field("validation_fraction", &C::validation_fraction, fraction_below_one(),
             {"", "Share of `file`, at its end, that is kept for evaluation, where there is no `validation_file`."});
  data.field("shuffle", &C::shuffle, kAny, {"", "Sequences come in an order drawn anew each epoch."});
  return data.section();
}

ConfigSection batch_section() {
  using C = BatchConfig;
  SectionDeclaration batch(
      "batch", "What one optimizer step sees.", [](auto& config) -> auto& { return config.batch; });
  batch.field("sequence_length", &C::sequence_length, kCount, {"tokens", "Length of a sequence."});
  batch.field("global_sequences", &C::global_sequences, kCount, {"sequences", "Sequences of a step, over all ranks."});
  batch.field("micro_sequences", &C::micro_sequences, kCountOrDerived,
              {"sequences",
               "Sequences of a micro-batch of one data-parallel rank; a step accumulates over as many as it takes. "
               "0: all at once."});
  return batch.section();
}

ConfigSection optimizer_section() {
  using C = OptimizerConfig;
  SectionDeclaration optimizer(
      "optimizer", "AdamW, with clipping by the global norm.", [](auto& config) -> auto& { return config.optimizer; });
  optimizer.field("learning_rate", &C::learning_rate, above(0), {"", "The peak, after the warm-up."});
  optimizer.field("minimum_learning_rate", &C::minimum_learning_rate, at_least(0), {"", "Where the decay ends."});
  optimizer.choice<Decay>(
      "schedule", &C::schedule,
      {{"cosine", Decay::cosine}, {"linear", Decay::linear}, {"constant_then_decay", Decay::constant_then_decay}},
      {"", "How the learning rate falls after the warm-up."});
  optimizer.field("warmup_steps", &C::warmup_steps, at_least(0), {"steps", "Linear warm-up."});
  optimizer.field("decay_steps", &C::decay_steps, at_least(0),
                  {"steps", "`constant_then_decay`: the last steps, which fall linearly."});
  optimizer.field("beta1", &C::beta1, fraction_below_one(), {"", "Decay of the first moment."});
  optimizer.field("beta2", &C::beta2, fraction_below_one(), {"", "Decay of the second moment."});
  optimizer.field("epsilon", &C::epsilon, above(0), {"", "Added to the root of the second moment."});
  optimizer.field("weight_decay", &C::weight_decay, at_least(0),
                  {"", "Of matrices and embeddings; biases and norms have none."});
  optimizer.field("clip_norm", &C::clip_norm, at_least(0),
                  {"", "Gradients are scaled down to this global norm. 0: never."});
  optimizer.choice<OptimizerSharding>("sharding", &C::sharding,
                                      {{"none", OptimizerSharding::none}, {"zero1", OptimizerSharding::zero1}},
                                      {"",
                                       "Who updates a weight that all ranks of dp x cp hold: each of them, or (ZeRO "
                                       "stage 1) the one that owns this part of "
                                       "the optimizer's state. Where dp x cp = 1 there is nothing to share."});
  return optimizer.section();
}

ConfigSection training_section() {
  using C = TrainingConfig;
  SectionDeclaration training(
      "training", "The run.", [](auto& config) -> auto& { return config.training; });
  training.field("steps", &C::steps, at_least(1), {"steps", "Optimizer steps."});
  training.field("seed", &C::seed, at_least(0),
                 {"", "Initial weights, dropout and the order of the data follow from it."});
  training.field("evaluate_every", &C::evaluate_every, at_least(0),
                 {"steps", "Validation loss every so many steps, and at the end. 0: never."});
  training.field("evaluate_batches", &C::evaluate_batches, kCount,
                 {"batches", "Batches of an evaluation, the same every time."});
  training.field("export_every", &C::export_every, at_least(0),
                 {"steps", "Weights are written every so many steps, besides at the end. 0: only then."});
  training.field(
      "initial_weights", &C::initial_weights, kAny,
      {"", "Weights to begin with (safetensors in Hugging Face's GPT-2 naming). Empty: drawn from the seed."});
  training.choice<DType>("dtype", &C::dtype,
                         {{"f32", DType::f32}, {"f64", DType::f64}, {"bf16", DType::bf16}, {"f16", DType::f16}},
                         {"",
                          "Of weights and activations. bf16 and f16 are stored: sums, statistics, gradients of weights "
                          "and the optimizer's master weights are f32."});
  training.field("loss_scale", &C::loss_scale, above(0),
                 {"", "f16: what gradients are scaled by at first. Halved where they are not finite."});
  training.field("loss_scale_interval", &C::loss_scale_interval, kCount,
                 {"steps", "f16: the scale is doubled after so many steps with finite gradients."});
  return training.section();
}

ConfigSection output_section() {
  SectionDeclaration output(
      "output", "What the run leaves.", [](auto& config) -> auto& { return config.output; });
  output.field("folder", &OutputConfig::folder, kAny,
               {"",
                "The run's folder, made anew; refused where it holds another run. Empty: `runs/` and the "
                "configuration's name."});
  return output.section();
}

ConfigSection device_section() {
  SectionDeclaration device(
      "device", "What computes.", [](auto& config) -> auto& { return config.device; });
  using C = DeviceConfig;
  device.choice<DeviceKind>("kind", &C::kind, {{"cpu", DeviceKind::cpu}, {"cuda", DeviceKind::cuda}},
                            {"", "The device of every rank: its processors, or one GPU ([how](cuda.md))."});
  device.field("threads", &C::threads, {.minimum = 0, .maximum = 4096},
               {"threads", "Threads of a rank. 0: the host's cores, shared evenly by its ranks."});
  device.choice<FloatProducts>("float_products", &C::float_products,
                               {{"exact", FloatProducts::exact}, {"tf32", FloatProducts::tf32}},
                               {"", "GPUs: f32 products in f32, or with operands rounded to TF32."});
  device.field("deterministic", &C::deterministic, kAny,
               {"",
                "GPUs: only algorithms that add in a fixed order, so that a run gives the same bits again on the same "
                "machine, mesh and libraries. On CPUs that is always so."});
  device.choice<GpuCommunication>("communication", &C::communication,
                                  {{"nccl", GpuCommunication::nccl}, {"staged", GpuCommunication::staged}},
                                  {"", "GPUs: collectives by NCCL, or, to test, through the hosts' memory and MPI."});
  device.choice<Execution>(
      "execution", &C::execution, {{"ops", Execution::ops}, {"graph", Execution::graph}},
      {"",
       "GPUs: op by op, each timed, or captured once as graphs and replayed, faster, with times of "
       "ops only from steps 1, 2, 52, 102, ..."});
  device.field("share_gpu", &C::share_gpu, kAny,
               {"", "GPUs: more than one rank may have the same one. To test with; slow, and NCCL may hang."});
  device.field("products", &C::products, kAny,
               {"",
                "GPUs: which algorithm computes each product, as an earlier run wrote it (its folder's "
                "`products.json`). What it lacks, and all where it is empty: the fastest, measured at the start."});
  return device.section();
}

ConfigSection communication_section() {
  using C = CommunicationConfig;
  SectionDeclaration communication(
      "communication", "How collectives run beside the computation.",
      [](auto& config) -> auto& { return config.communication; });
  communication.choice<Progress>(
      "progress", &C::progress, {{"thread", Progress::thread}, {"poll", Progress::poll}},
      {"", "Who moves transfers on while a rank computes: a thread of its own, or polls between blocks."});
  communication.field(
      "bucket_bytes", &C::bucket_bytes, kCount,
      {"bytes", "Gradients are reduced over dp and cp, and updated weights gathered, in buckets of about this size."});
  return communication.section();
}

ConfigSection log_section() {
  SectionDeclaration log(
      "log", "What the run is compared with.", [](auto& config) -> auto& { return config.log; });
  log.field("profile", &LogConfig::profile, kAny,
            {"", "Hardware profile for the predictions (`annulus calibrate`). Empty: a short one is measured first."});
  return log.section();
}

}  // namespace

const std::vector<ConfigSection>& run_config_schema() {
  static const std::vector<ConfigSection> schema = {model_section(),         dropout_section(), parallel_section(),
                                                    data_section(),          batch_section(),   optimizer_section(),
                                                    training_section(),      output_section(),  device_section(),
                                                    communication_section(), log_section()};
  return schema;
}

}  // namespace annulus
