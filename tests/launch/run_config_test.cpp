#include "launch/run_config.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "runtime/core/error.h"

namespace annulus {
namespace {

using Texts = std::vector<std::string>;

constexpr std::string_view kSmall = R"(
{
  // A model that fits on two ranks.
  "model": {"layers": 2, "hidden": 64, "heads": 4, "vocabulary": 500 /* no files needed */},
  "batch": {"sequence_length": 32, "global_sequences": 4}
})";

RunConfig small(const Texts& overrides, std::int64_t ranks = 1) {
  return parse_run_config(kSmall, "small.json", overrides, ranks);
}

Texts problems_of(std::string_view text, const Texts& overrides, std::int64_t ranks = 1) {
  try {
    parse_run_config(text, "small.json", overrides, ranks);
  } catch (const ConfigError& error) {
    return error.problems();
  }
  return {};
}

/// The one problem that small.json has with these overrides.
std::string problem(const Texts& overrides, std::int64_t ranks = 1) {
  const Texts problems = problems_of(kSmall, overrides, ranks);
  if (problems.size() == 1) return problems[0];
  std::string all = std::to_string(problems.size()) + " problems:";
  for (const std::string& one : problems) all += "\n" + one;
  return all;
}

TEST(RunConfig, ReadsCommentsAndFillsInWhatFollows) {
  const RunConfig config = small({"parallel.tp=2", "batch.micro_sequences=1"}, 4);
  EXPECT_EQ(config.model.layers, 2);
  EXPECT_EQ(config.model.kv_heads, 4);
  EXPECT_EQ(config.model.head_dim, 16);
  EXPECT_EQ(config.model.ffn, 256);
  EXPECT_EQ(config.model.block_size, 32);
  EXPECT_EQ(config.parallel.dp, 2);
  EXPECT_EQ(config.micro_batches(), 2);
  EXPECT_EQ(config.ranks(), 4);
  EXPECT_EQ(config.output.folder, "runs/small");
  EXPECT_EQ(small({}, 2).batch.micro_sequences, 2);
}

TEST(RunConfig, OverridesReplaceTheFile) {
  const RunConfig config =
      small({"model.layers=7", "model.activation=gelu_erf", "parallel.layout=\"striped\"", "output.folder=17",
             "data.file=a", "data.validation_file=\"c\"", "optimizer.learning_rate=1e-3", "training.dtype=f64",
             "data.shuffle=false", "model.dropout.residual=0.1"});
  EXPECT_EQ(config.model.layers, 7);
  EXPECT_EQ(config.model.activation, Activation::gelu_erf);
  EXPECT_EQ(config.parallel.layout, RingLayout::striped);
  EXPECT_EQ(config.output.folder, "17");
  EXPECT_EQ(config.data.file, "a");
  EXPECT_EQ(config.data.validation_file, "c");
  EXPECT_EQ(config.optimizer.learning_rate, 1e-3);
  EXPECT_EQ(config.training.dtype, DType::f64);
  EXPECT_FALSE(config.data.shuffle);
  EXPECT_EQ(config.model.dropout.residual, 0.1);
}

TEST(RunConfig, TheResolvedConfigurationParsesBackToItself) {
  const RunConfig config =
      small({"parallel.cp=2", "parallel.layout=zigzag", "optimizer.learning_rate=0.000123456789012345",
             "data.file=x.bin", "training.seed=9007199254740993"},
            4);
  const std::string json = to_json(config);
  const RunConfig again = parse_run_config(json, "elsewhere.json", {}, 4);
  EXPECT_EQ(to_json(again), json);
  EXPECT_EQ(again.optimizer.learning_rate, 0.000123456789012345);
  EXPECT_EQ(again.training.seed, 9007199254740993);
}

TEST(RunConfig, UnknownSettingsAreNamedWithTheNearest) {
  EXPECT_EQ(problem({"model.layer=3"}), "--set model.layer=3: model.layer is no setting; did you mean model.layers?");
  EXPECT_EQ(problem({"model.tp=3"}), "--set model.tp=3: model.tp is no setting; did you mean parallel.tp?");
  EXPECT_EQ(problem({"optimzer.beta1=0"}),
            "--set optimzer.beta1=0: optimzer.beta1 is no setting; did you mean optimizer.beta1?");
  EXPECT_EQ(problem({"sequence_length=3"}),
            "--set sequence_length=3: sequence_length is no setting; did you mean batch.sequence_length?");
  EXPECT_EQ(problem({"zzz=3"}), "--set zzz=3: zzz is no setting; docs/configuration.md lists them all");
  EXPECT_EQ(problem({"model=3"}), "--set model=3: model is a group of settings; set one of them");
  EXPECT_EQ(problem({"model.layers"}), "--set model.layers has no value; write --set PATH=VALUE");
  const Texts problems = problems_of(R"({"model": {"vocabulary": 5, "haeds": 3}, "modle": {}, "batch": 3})", {});
  EXPECT_EQ(problems, (Texts{"model.haeds is no setting; did you mean model.heads?",
                             "modle is no setting; docs/configuration.md lists them all",
                             "batch=3 must be a group of settings, as in \"batch\": {...}"}));
}

TEST(RunConfig, WrongTypesAndRanges) {
  EXPECT_EQ(problem({"model.layers=\"12\""}), "model.layers=\"12\" is text; it must be an integer");
  EXPECT_EQ(problem({"model.layers=1.5"}), "model.layers=1.5 is not whole; it must be an integer");
  EXPECT_EQ(problem({"model.layers=0"}), "model.layers=0 is out of range; it must be in [1, 1000000000]");
  EXPECT_EQ(problem({"optimizer.learning_rate=0"}), "optimizer.learning_rate=0 is out of range; it must be above 0");
  EXPECT_EQ(problem({"optimizer.learning_rate=true"}),
            "optimizer.learning_rate=true is true or false; it must be a number");
  EXPECT_EQ(problem({"model.dropout.attention=1.0"}),
            "model.dropout.attention=1.0 is out of range; it must be in [0, 1)");
  EXPECT_EQ(problem({"data.shuffle=1"}), "data.shuffle=1 is a number; it must be true or false");
  EXPECT_EQ(problem({"parallel.layout=zig-zag"}),
            "parallel.layout=\"zig-zag\" is not known; it must be one of contiguous, striped, zigzag");
  EXPECT_EQ(problems_of(R"({"model": {"vocabulary": 5}, "data": {"file": [1]}})", {}),
            Texts{"data.file=[1] is a list; it must be text"});
  EXPECT_EQ(problem({"training.seed=18446744073709551615"}),
            "training.seed=18446744073709551615 is too large for 64 bits");
}

TEST(RunConfig, ModelsThatDoNotDivide) {
  EXPECT_EQ(problem({"model.heads=10", "model.hidden=100", "parallel.tp=4"}, 4),
            "model.heads=10 cannot be split over parallel.tp=4 (10 % 4 = 2); use tp in {1, 2, 5, 10}");
  EXPECT_EQ(
      problem({"model.heads=5"}),
      "model.hidden=64 cannot be split over model.heads=5 (64 % 5 = 4); use hidden 60 or 65, or give model.head_dim");
  EXPECT_EQ(problem({"model.heads=5", "model.head_dim=16"}), "0 problems:");
  EXPECT_EQ(problem({"model.kv_heads=3"}),
            "model.heads=4 do not share model.kv_heads=3 evenly (4 % 3 = 1); use kv_heads in {1, 2, 4}");
  EXPECT_EQ(problem({"model.heads=12", "model.hidden=96", "model.kv_heads=6", "parallel.tp=4"}, 4),
            "model.kv_heads=6 can neither be split over parallel.tp=4 nor copied evenly; one must divide the other, as "
            "with tp in "
            "{1, 2, 3, 6}");
  EXPECT_EQ(problem({"model.kv_heads=2", "parallel.tp=4"}, 4), "0 problems:");
  EXPECT_EQ(problem({"model.ffn=130", "parallel.tp=4"}, 4),
            "model.ffn=130 cannot be split over parallel.tp=4 (130 % 4 = 2); use ffn 128 or 132");
  EXPECT_EQ(problem({"model.block_size=16"}),
            "batch.sequence_length=32 is longer than the position table, model.block_size=16; use sequence_length at "
            "most 16");
  EXPECT_EQ(problem({"model.vocabulary=0"}),
            "model.vocabulary=0 is taken from the token file, and data.file names none; give one of the two");
}

TEST(RunConfig, MeshesAndBatchesThatDoNotDivide) {
  EXPECT_EQ(problem({"parallel.cp=2", "batch.sequence_length=30"}, 2),
            "batch.sequence_length=30 cannot be laid out zigzag over parallel.cp=2 (30 % 4 = 2); use sequence_length "
            "28 or 32");
  EXPECT_EQ(problem({"parallel.cp=2", "batch.sequence_length=30", "parallel.layout=striped"}, 2), "0 problems:");
  EXPECT_EQ(problem({"parallel.tp=4", "parallel.sequence_parallel=true", "batch.sequence_length=33",
                     "batch.micro_sequences=1"},
                    4),
            "parallel.sequence_parallel=true cannot split a rank's 33 tokens (micro_sequences=1 x sequence_length=33 / "
            "cp=1) over "
            "parallel.tp=4 (33 % 4 = 1); use a micro-batch or sequence length that tp divides");
  EXPECT_EQ(problem({"parallel.tp=2"}, 1),
            "parallel.tp=2 x parallel.cp=1 = 2 does not divide the 1 ranks that run; start a multiple of 2 ranks "
            "(mpirun -n 2), or "
            "change tp or cp");
  EXPECT_EQ(problem({"parallel.tp=2", "parallel.dp=2"}, 2),
            "parallel.tp=2 x parallel.cp=1 x parallel.dp=2 = 4 ranks, but 2 run; start 4 (mpirun -n 4), or set "
            "parallel.dp=0 (what "
            "remains)");
  EXPECT_EQ(problem({}, 3),
            "batch.global_sequences=4 cannot be split over dp=3 (4 % 3 = 1); use global_sequences 3 or 6");
  EXPECT_EQ(problem({"batch.micro_sequences=3"}),
            "batch.global_sequences=4 is not a whole number of micro-batches of dp=1 x batch.micro_sequences=3 (4 % 3 "
            "= 1); use "
            "global_sequences 3 or 6");
}

TEST(RunConfig, TrainingThatDoesNotFit) {
  EXPECT_EQ(problem({"training.steps=10", "optimizer.warmup_steps=11"}),
            "optimizer.warmup_steps=11 is longer than the run, training.steps=10; use at most 10");
  EXPECT_EQ(
      problem({"training.steps=10", "optimizer.warmup_steps=5", "optimizer.decay_steps=6",
               "optimizer.schedule=constant_then_decay"}),
      "optimizer.warmup_steps=5 and optimizer.decay_steps=6 are together longer than the run, training.steps=10; use "
      "decay_steps at most 5");
  EXPECT_EQ(problem({"optimizer.learning_rate=0.001", "optimizer.minimum_learning_rate=0.01"}),
            "optimizer.minimum_learning_rate=0.01 is above optimizer.learning_rate=0.001; use at most that");
  EXPECT_EQ(problem({"training.evaluate_every=5"}),
            "training.evaluate_every=5 has nothing to evaluate on; give data.validation_file, or a "
            "data.validation_fraction such "
            "as 0.1");
}

TEST(RunConfig, SettingsOfGpus) {
  const RunConfig config = small({"device.kind=cuda", "device.float_products=tf32", "device.deterministic=true",
                                  "device.communication=staged", "device.share_gpu=true"});
  EXPECT_EQ(config.device.kind, DeviceKind::cuda);
  EXPECT_EQ(config.device.float_products, FloatProducts::tf32);
  EXPECT_EQ(config.device.communication, GpuCommunication::staged);
  EXPECT_TRUE(config.device.deterministic && config.device.share_gpu);
  EXPECT_EQ(small({}).device.kind, DeviceKind::cpu);
  EXPECT_EQ(problem({"device.deterministic=true"}), "0 problems:");
  for (const char* setting :
       {"device.float_products=tf32", "device.communication=staged", "device.execution=graph", "device.share_gpu=true"})
    EXPECT_EQ(problem({setting}),
              std::string(setting) + " is for GPUs, and device.kind=cpu; leave it out, or set device.kind=cuda");
  EXPECT_EQ(problem({"device.kind=cuda", "device.execution=graph", "device.communication=staged"}),
            "device.execution=graph captures collectives, and device.communication=staged has the host carry them out; "
            "use device.execution=ops, or device.communication=nccl");
  EXPECT_EQ(problem({"device.kind=gpu"}), "device.kind=\"gpu\" is not known; it must be one of cpu, cuda");
  EXPECT_EQ(problem({"device.deterministic=1"}), "device.deterministic=1 is a number; it must be true or false");
}

/// A rule stays silent about settings that are wrong by themselves.
TEST(RunConfig, AllProblemsAtOnce) {
  const Texts problems =
      problems_of(R"({"model": {"layers": 0, "heads": 10, "hidden": 64, "vocabulary": 500}, "parallel": {"tp": 4},
      "batch": {"sequence_length": 33, "global_sequences": 2}, "trainin": {"steps": 3}})",
                  {"parallel.cp=2", "model.dropout.residual=-1"}, 8);
  EXPECT_EQ(problems, (Texts{"trainin is no setting; docs/configuration.md lists them all",
                             "model.dropout.residual=-1 is out of range; it must be in [0, 1)",
                             "model.layers=0 is out of range; it must be in [1, 1000000000]",
                             "model.hidden=64 cannot be split over model.heads=10 (64 % 10 = 4); use hidden 60 or 70, "
                             "or give model.head_dim",
                             "model.heads=10 cannot be split over parallel.tp=4 (10 % 4 = 2); use tp in {1, 2, 5, 10}",
                             "batch.sequence_length=33 cannot be laid out zigzag over parallel.cp=2 (33 % 4 = 1); use "
                             "sequence_length 32 or 36"}));
}

TEST(RunConfig, NoValidJson) {
  EXPECT_EQ(problems_of("{\n  \"model\": {,}\n}", {}),
            Texts{"small.json: no valid JSON (comments are allowed): parse error at line 2, column 13: syntax error "
                  "while parsing object "
                  "key - unexpected ','; expected string literal"});
  EXPECT_EQ(problems_of("[]", {}), Texts{"small.json: a configuration is an object, {...}"});
  EXPECT_EQ(problems_of(R"({"model": {"vocabulary": 5, "layers": 1, "layers": 2}})", {}),
            Texts{"small.json: layers stands twice in one group; remove one"});
  EXPECT_THROW(read_run_config("/nowhere/x.json", {}, 1), ConfigError);
}

TEST(RunConfig, TheReferencePageIsUpToDate) {
  std::ifstream stream(std::filesystem::path(ANNULUS_SOURCE_FOLDER) / "docs/configuration.md");
  std::ostringstream text;
  text << stream.rdbuf();
  EXPECT_EQ(text.str(), configuration_reference())
      << "run: annulus info --configuration-reference > docs/configuration.md";
}

}  // namespace
}  // namespace annulus
