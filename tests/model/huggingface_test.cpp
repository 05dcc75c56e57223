// Weights in Hugging Face's naming of GPT-2: written by one mesh, read by another, bit for bit; what is refused.
#include "model/huggingface.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "collectives/thread_communicator.h"
#include "model/huggingface_config.h"
#include "model/huggingface_tensors.h"
#include "model/step_runner.h"
#include "runtime/core/random.h"
#include "runtime/cpu/device.h"
#include "tests/training/support.h"

namespace annulus {
namespace {

using testing::contents;
using testing::expect_error;
using testing::Random;
using testing::TemporaryFolder;

StepOptions tiny_step(DType dtype = DType::f32, std::int64_t kv_heads = 4) {
  StepOptions options;
  options.model = {.layers = 2,
                   .hidden = 12,
                   .heads = 4,
                   .kv_heads = kv_heads,
                   .head_dim = 3,
                   .ffn = 20,
                   .vocabulary = 19,
                   .vocabulary_padding = 4,
                   .block_size = 16,
                   .dropout = {}};
  options.dtype = dtype;
  options.sequence_length = 8;
  options.micro_sequences = 1;
  return options;
}

/// A weight as a function of its name and place: what every mesh must hold.
std::vector<double> weights_of(const Parameter& parameter, std::uint64_t seed) {
  const PhiloxKey key = stream_key(seed, parameter.name);
  std::vector<double> values(static_cast<std::size_t>(parameter.shape.elements()));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(normal(key, i));
  return values;
}

template <class T>
std::vector<T> as(const std::vector<double>& values) {
  return {values.begin(), values.end()};
}

void fill(StepRunner& runner, std::uint64_t seed) {
  for (const Parameter& parameter : runner.step().parameters) {
    dispatch_float(runner.options().dtype, [&]<class T>(T) {
      runner.load(parameter, reinterpret_cast<const std::byte*>(as<T>(weights_of(parameter, seed)).data()));
    });
  }
}

/// Every shard holds what `weights_of` says, padding is zero.
template <class Parameters>
void expect_weights(const Executor& executor, const Parameters& parameters, std::uint64_t seed) {
  for (const Parameter& parameter : parameters) {
    const ValueType& type = executor.program().type(parameter.value);
    dispatch_float(type.dtype, [&]<class T>(T) {
      const std::vector<T> whole = as<T>(weights_of(parameter, seed));
      std::vector<T> expected(static_cast<std::size_t>(type.shape.elements())), found(expected.size(), T(7));
      take_shard(executor.program().mesh(), parameter, type, reinterpret_cast<const std::byte*>(whole.data()),
                 reinterpret_cast<std::byte*>(expected.data()));
      executor.read(parameter.value, found.data());
      EXPECT_EQ(std::memcmp(expected.data(), found.data(), static_cast<std::size_t>(type.bytes())), 0)
          << parameter.name;
    });
  }
}

struct Spread {
  MeshShape mesh;
  StepOptions options = tiny_step();
};

void on_ranks(const Spread& spread, const std::function<void(StepRunner&, Communicator& world)>& body) {
  run_ranks(spread.mesh.ranks(), [&](Communicator& world) {
    MeshShape shape = spread.mesh;
    shape.kv_heads = static_cast<int>(spread.options.model.kv_heads);
    const MeshAxes mesh = make_mesh(shape, world.rank());
    Groups groups(world, mesh);
    CpuDevice device(1);
    StepRunner runner(mesh, spread.options, Tail::update, device, groups.lookup());
    body(runner, world);
  });
}

void export_from(const Spread& spread, const std::string& folder, std::uint64_t seed,
                 const SafetensorsWriteOptions& options = {}) {
  on_ranks(spread, [&](StepRunner& runner, Communicator& world) {
    fill(runner, seed);
    export_huggingface(folder, runner.options().model, runner.step().parameters, runner.executor(), world, options);
  });
}

void expect_import(const Spread& spread, const std::string& folder, std::uint64_t seed) {
  on_ranks(spread, [&](StepRunner& runner, Communicator&) {
    const SafetensorsReader file(folder);
    check_huggingface(file, runner.options().model);
    load_huggingface(file, runner.options().model, runner.step().parameters, runner.executor());
    expect_weights(runner.executor(), runner.step().parameters, seed);
  });
}

TEST(HuggingFace, EveryMeshReadsWhatEveryMeshWrites) {
  Random random;
  const auto seed = static_cast<std::uint64_t>(random.below(1 << 30));
  const std::vector<MeshShape> meshes = {{}, {.tp = 2}, {.cp = 2}, {.dp = 2}, {.cp = 2, .tp = 2}, {.dp = 2, .tp = 4}};
  std::string first;
  for (const MeshShape& from : meshes) {
    const TemporaryFolder folder;
    const std::string weights = folder / "weights";
    export_from({from}, weights, seed);
    const std::string bytes = contents(weights + "/model.safetensors");
    if (first.empty()) first = bytes;
    EXPECT_EQ(bytes, first) << "dp" << from.dp << " cp" << from.cp << " tp" << from.tp;
    for (const MeshShape& to : meshes) expect_import({to}, weights, seed);
  }
}

TEST(HuggingFace, SeveralFilesDoubleAndGroupedQueries) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const std::int64_t kv_heads : {1, 2, 4}) {
      const TemporaryFolder folder;
      const StepOptions options = tiny_step(dtype, kv_heads);
      export_from({{.cp = 2, .tp = 4}, options}, folder / "", 5, {.shard_limit_bytes = 3000});
      EXPECT_TRUE(std::filesystem::exists(folder / "model.safetensors.index.json"));
      for (const MeshShape& mesh : {MeshShape{}, MeshShape{.tp = 2}, MeshShape{.dp = 2, .tp = 4}})
        expect_import({mesh, options}, folder / "", 5);
    }
  }
}

TEST(HuggingFace, AttentionIsFusedAsQueryKeyValue) {
  const TemporaryFolder folder;
  export_from({{.tp = 2}}, folder / "", 11);
  const SafetensorsReader file(folder / "model.safetensors");
  const ModelConfig model = tiny_step().model;
  const std::int64_t D = model.hidden;
  EXPECT_EQ(file.info("h.1.attn.c_attn.weight").shape, (Shape{D, 3 * D}));
  std::vector<float> fused(static_cast<std::size_t>(3 * D * D)), bias(static_cast<std::size_t>(3 * D));
  file.read("h.1.attn.c_attn.weight", {reinterpret_cast<std::byte*>(fused.data()), DType::f32, {D, 3 * D}});
  file.read("h.1.attn.c_attn.bias", {reinterpret_cast<std::byte*>(bias.data()), DType::f32, {3 * D}});
  const auto ours = [](const char* name, const Shape& shape) {
    Parameter parameter;
    parameter.name = name;
    parameter.shape = shape;
    return weights_of(parameter, 11);
  };
  const auto query = ours("layers.1.attention.query.weight", {D, D});
  const auto key_value = ours("layers.1.attention.key_value.weight", {D, 2, D});
  const auto query_bias = ours("layers.1.attention.query.bias", {D});
  const auto key_value_bias = ours("layers.1.attention.key_value.bias", {2, D});
  for (std::int64_t column = 0; column < 3 * D; ++column) {
    const std::int64_t part = column / D, at = column % D;
    for (std::int64_t row = 0; row < D; ++row) {
      const auto index = static_cast<std::size_t>(part == 0 ? row * D + at : (row * 2 + part - 1) * D + at);
      EXPECT_EQ(fused[static_cast<std::size_t>(row * 3 * D + column)], (part == 0 ? query : key_value)[index]);
    }
    const auto index = static_cast<std::size_t>(part == 0 ? at : (part - 1) * D + at);
    EXPECT_EQ(bias[static_cast<std::size_t>(column)], (part == 0 ? query_bias : key_value_bias)[index]);
  }
}

TEST(HuggingFace, FeedsAnEvaluation) {
  const TemporaryFolder folder;
  export_from({{}}, folder / "", 3);
  const EvaluateStep step = record_evaluate_step(make_mesh({}, 0), tiny_step());
  CpuDevice device(1);
  Executor executor(step.program, device, [](AxisSet) -> Communicator& { throw InternalError("one rank"); });
  load_huggingface(SafetensorsReader(folder / "model.safetensors"), tiny_step().model, step.parameters, executor);
  expect_weights(executor, step.parameters, 3);
}

TEST(HuggingFace, ConfigSaysWhatTransformersWants) {
  ModelConfig model = tiny_step().model;
  const auto json = nlohmann::json::parse(huggingface_config(model));
  EXPECT_EQ(json.at("model_type"), "gpt2");
  EXPECT_EQ(json.at("n_layer"), 2);
  EXPECT_EQ(json.at("n_embd"), 12);
  EXPECT_EQ(json.at("n_head"), 4);
  EXPECT_EQ(json.at("n_inner"), 20);
  EXPECT_EQ(json.at("vocab_size"), 19);
  EXPECT_EQ(json.at("n_positions"), 16);
  EXPECT_EQ(json.at("activation_function"), "gelu_new");
  EXPECT_EQ(json.at("layer_norm_epsilon"), 1e-5);
  EXPECT_EQ(json.at("tie_word_embeddings"), true);
  model.kv_heads = 2;
  EXPECT_NE(nlohmann::json::parse(huggingface_config(model)).at("model_type"), "gpt2");
}

/// A file of the tiny model's tensors, some of them changed.
struct Stored {
  std::map<std::string, Shape> shapes;
  std::map<std::string, float> values;  ///< of all of a tensor's elements; 0 where it is not named

  Stored() {
    for (const HuggingFaceTensor& tensor : huggingface_tensors(tiny_step().model)) shapes[tensor.name] = tensor.shape;
  }
  std::string write(const TemporaryFolder& folder, const std::string& prefix = "") const {
    const std::string path = folder / "given.safetensors";
    std::vector<TensorDeclaration> declarations;
    for (const auto& [name, shape] : shapes) declarations.push_back({prefix + name, DType::f32, shape});
    SafetensorsWriter writer(path, declarations, {.existing = Existing::replace});
    for (const auto& [name, shape] : shapes) {
      const auto value = values.find(name);
      std::vector<float> elements(static_cast<std::size_t>(shape.elements()),
                                  value == values.end() ? 0 : value->second);
      writer.write(prefix + name, {reinterpret_cast<std::byte*>(elements.data()), DType::f32, shape});
    }
    writer.finish();
    return path;
  }
};

void check(const std::string& path, const ModelConfig& model = tiny_step().model) {
  check_huggingface(SafetensorsReader(path), model);
}

TEST(HuggingFace, AcceptsPrefixTiedHeadAndBuffers) {
  const TemporaryFolder folder;
  Stored stored;
  check(stored.write(folder));
  check(stored.write(folder, "transformer."));
  stored.shapes["h.0.attn.bias"] = {1, 1, 16, 16};
  stored.shapes["h.1.attn.masked_bias"] = {1};
  stored.shapes["lm_head.weight"] = {19, 12};
  check(stored.write(folder));
  stored.values["lm_head.weight"] = 1;
  expect_error([&] { check(stored.write(folder)); }, {"lm_head.weight", "wte.weight", "tied"});
}

TEST(HuggingFace, RefusesOtherModels) {
  const TemporaryFolder folder;
  const auto refuse = [&](auto change, const std::vector<std::string>& parts) {
    Stored stored;
    ModelConfig model = tiny_step().model;
    change(stored, model);
    const std::string path = stored.write(folder);
    expect_error([&] { check(path, model); }, parts);
  };
  using Model = ModelConfig;
  refuse([](Stored& s, Model&) { s.shapes.erase("h.1.ln_2.bias"); }, {"lacks 1", "'h.1.ln_2.bias'"});
  refuse([](Stored& s, Model&) { s.shapes["h.0.mlp.gate"] = {3}; }, {"1 tensors", "'h.0.mlp.gate'"});
  refuse([](Stored&, Model& m) { m.vocabulary = 21; },
         {"given.safetensors: tensor 'wte.weight' is [19, 12], and [21, 12] is expected", "set model.vocabulary=19"});
  refuse([](Stored&, Model& m) { m.block_size = 8; }, {"'wpe.weight' is [16, 12]", "set model.block_size=16"});
  refuse([](Stored&, Model& m) { m.layers = 3; }, {"has 2 layers", "set model.layers=2"});
  refuse([](Stored&, Model& m) { m.ffn = 48; }, {"'h.0.mlp.c_fc.weight'", "set model.ffn=20"});
  refuse([](Stored&, Model& m) { m.kv_heads = 2; },
         {"'h.0.attn.c_attn.weight' is [12, 36], and [12, 24] is expected", "kv_heads", "equal 36"});
  refuse([](Stored& s, Model&) { s.shapes["ln_f.weight"] = {12, 1}; }, {"'ln_f.weight' is [12, 1]", "[12] is"});
  refuse([](Stored& s, Model&) { s.shapes.clear(), s.shapes["weights"] = {2}; }, {"lacks 28", "'weights'"});
}

TEST(HuggingFace, AsksTheConfigBesideForWhatShapesDoNotTell) {
  const TemporaryFolder folder;
  const std::string path = Stored().write(folder);
  const auto refuse = [&](auto change, const std::vector<std::string>& parts) {
    auto json = nlohmann::json::parse(huggingface_config(tiny_step().model));
    change(json);
    folder.write("config.json", json.dump());
    expect_error([&] { check(path); }, parts);
  };
  folder.write("config.json", huggingface_config(tiny_step().model));
  check(path);
  refuse([](auto& json) { json["n_head"] = 2; }, {"config.json: n_head is 2", "set model.heads=2"});
  refuse([](auto& json) { json["activation_function"] = "gelu"; }, {"set model.activation=gelu_erf"});
  refuse([](auto& json) { json["activation_function"] = "relu"; }, {"activation_function is relu"});
  refuse([](auto& json) { json["layer_norm_epsilon"] = 1e-6; }, {"set model.layer_norm_epsilon=1e-06"});
  refuse([](auto& json) { json["model_type"] = "llama"; }, {"model_type is llama"});
  refuse([](auto& json) { json["n_head"] = "four"; }, {"wrong type"});
  refuse([](auto& json) { json["scale_attn_by_inverse_layer_idx"] = true; }, {"scale_attn_by_inverse_layer_idx"});
}

TEST(HuggingFace, AllRanksHearThatTheFirstCannotWrite) {
  const TemporaryFolder folder;
  folder.write("model.safetensors", "somebody's");
  on_ranks({{.cp = 2, .tp = 2}}, [&](StepRunner& runner, Communicator& world) {
    fill(runner, 1);
    expect_error(
        [&] {
          export_huggingface(folder / "", runner.options().model, runner.step().parameters, runner.executor(), world);
        },
        {world.rank() == 0 ? folder / "model.safetensors" : "rank 0 cannot write"});
  });
  EXPECT_EQ(contents(folder / "model.safetensors"), "somebody's");
}

}  // namespace
}  // namespace annulus
