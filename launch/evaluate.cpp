#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "launch/command.h"
#include "launch/data_source.h"
#include "launch/evaluation.h"
#include "launch/rank_device.h"
#include "launch/rank_setup.h"
#include "model/huggingface.h"

namespace annulus {
namespace {

struct Options {
  std::string file;
  std::vector<std::string> overrides;
  std::string weights, tokens;
  std::int64_t sequences = 0;
};

Options parse(Arguments arguments) {
  Options options;
  CommandLine line("evaluate", "Loss and perplexity of weights on a token file, on all ranks of the job.");
  line.configuration(options.file, options.overrides);
  line.option("--weights", options.weights, "safetensors file or folder in Hugging Face's GPT-2 naming");
  line.option("--tokens", options.tokens, "The token file");
  line.option("--sequences", options.sequences, "Only the first so many sequences. 0: all");
  line.parse(arguments);
  std::vector<std::string> problems;
  if (options.weights.empty())
    problems.push_back("--weights names no weights to evaluate; give a safetensors file or its folder");
  if (options.tokens.empty())
    problems.push_back("--tokens names no token file to evaluate on; make one with annulus tokenize");
  if (options.sequences < 0)
    problems.push_back(fmt::format("--sequences={} is out of range; it must be at least 0", options.sequences));
  if (!problems.empty()) throw ConfigError(problems);
  options.overrides.push_back("data.file=" + options.tokens);
  options.overrides.push_back("data.validation_file=" + options.tokens);
  return options;
}

}  // namespace

int run_evaluate(Process& process, Arguments arguments) {
  Options options;
  process.agree([&] { options = parse(arguments); });
  const RunConfig config = load_run_config(process, options.file, options.overrides);
  std::unique_ptr<DataSource> data;
  std::unique_ptr<SafetensorsReader> weights;
  std::int64_t device_reserve = 0;
  process.agree([&] {
    device_reserve = device_reserve_bytes(config);
    data = std::make_unique<DataSource>(
        config, process.local_rank() == 0 ? DataSource::Check::every_token : DataSource::Check::headers);
    weights = std::make_unique<SafetensorsReader>(options.weights);
    check_huggingface(*weights, config.model);
  });

  const MeshAxes mesh = make_mesh(mesh_shape_of(config), process.rank());
  process.set_place(coordinates(mesh));
  const std::unique_ptr<RankDevice> device = make_rank_device(process, config);
  const StepOptions step_options = step_options_of(config);
  EvaluateStep step = record_evaluate_step(mesh, step_options);
  check_same_collectives(process, step.program);
  device->make_ready(memory_need_of(step.program, step.parameters, device->device()), device_reserve, {&step.program});
  WatchedOps watched(process, *device);
  Groups groups(device->world(), mesh);
  ExecutorOptions executor_options = device->executor_options();
  executor_options.monitor = &watched;
  Evaluator evaluator(std::move(step), step_options, device->device(), groups.lookup(), executor_options);
  load_huggingface(*weights, config.model, evaluator.step().parameters, evaluator.executor());

  const std::int64_t all = data->validation_sequences();
  const std::int64_t sequences = options.sequences > 0 ? std::min(options.sequences, all) : all;
  const double loss = evaluator.loss(data->validation(), sequences);
  if (process.is_first()) {
    fmt::print("loss {:.6f}  perplexity {:.4f}  ({} sequences of {} tokens)\n", loss, std::exp(loss), sequences,
               config.batch.sequence_length);
  }
  return 0;
}

}  // namespace annulus
