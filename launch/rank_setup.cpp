#include "launch/rank_setup.h"

#include <fmt/format.h>

#include <cstdio>

#include "runtime/training/token_file.h"

namespace annulus {
namespace {

constexpr double kTimesExpected = 100;  // an op that takes so many times its predicted seconds counts as hanging

std::int64_t vocabulary_of(const DataConfig& data) {
  const std::int64_t vocabulary = TokenFile(data.file).info().vocabulary_size;
  if (vocabulary > 0) return vocabulary;
  throw ConfigError(fmt::format(
      "model.vocabulary=0, but {} does not say how large its vocabulary is; give model.vocabulary (50257 for "
      "GPT-2's tokens)",
      data.file));
}

}  // namespace

RunConfig load_run_config(std::int64_t ranks, const std::string& file, const std::vector<std::string>& overrides) {
  RunConfig config = read_run_config(file, overrides, ranks);
  if (config.model.vocabulary == 0) config.model.vocabulary = vocabulary_of(config.data);
  return config;
}

RunConfig load_run_config(Process& process, const std::string& file, const std::vector<std::string>& overrides) {
  RunConfig config;
  process.agree([&] { config = load_run_config(process.size(), file, overrides); });
  return config;
}

MeshShape mesh_shape_of(const RunConfig& config) {
  return {.dp = static_cast<int>(config.parallel.dp),
          .cp = static_cast<int>(config.parallel.cp),
          .tp = static_cast<int>(config.parallel.tp),
          .kv_heads = static_cast<int>(config.model.kv_heads)};
}

StepOptions step_options_of(const RunConfig& config) {
  StepOptions options;
  options.model = config.model;
  options.dtype = config.training.dtype;
  options.sequence_parallel = config.parallel.sequence_parallel ? SequenceParallel::on : SequenceParallel::off;
  options.layout = config.parallel.layout;
  options.sequence_length = config.batch.sequence_length;
  options.micro_sequences = config.batch.micro_sequences;
  options.micro_batches = static_cast<int>(config.micro_batches());
  options.bucket_bytes = config.communication.bucket_bytes;
  options.seed = static_cast<std::uint64_t>(config.training.seed);
  options.clip_norm = config.optimizer.clip_norm;
  options.optimizer = {config.optimizer.beta1, config.optimizer.beta2, config.optimizer.epsilon,
                       config.optimizer.weight_decay};
  options.optimizer_sharding = config.optimizer.sharding;
  return options;
}

std::int64_t device_reserve_bytes(const RunConfig& config) {
  return config.log.profile.empty() ? 0 : load_hardware_profile(config.log.profile).device_reserve_bytes;
}

void check_same_collectives(Process& process, const Program& program) {
  const std::uint64_t hash = communication_hash(program);
  const std::vector<std::uint64_t> all = process.gather(hash);
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    if (all[rank] != all[0])
      throw InternalError(fmt::format("ranks 0 and {} have recorded different collectives", rank));
  }
}

WatchedOps::WatchedOps(Process& process, RankDevice& device)
    : watchdog_(
          process.rank(), process.size(), exchange_over(process.world()),
          [&process, &device](const std::string& message) {
            fmt::print(stderr, "{} {}\n", process.name(), message);
            std::fflush(stderr);
            if (!device.abort_collectives()) process.end_job(1);
          },
          {}, [&process] { process.end_job(1); }) {}

void WatchedOps::begin(std::uint64_t sequence, const char* what, double expected_seconds) {
  watchdog_.begin(sequence + 1, what,
                  kTimesExpected * expected_seconds);  // raised to its least deadline where that is longer
}

void WatchedOps::end() { watchdog_.end(); }

void WatchedOps::watch(std::function<Activity()> activity) {
  if (!activity) return watchdog_.watch(nullptr);
  watchdog_.watch([asked = std::move(activity)] {
    Activity now = asked();
    return Watchdog::Sample{.sequence = now.sequence + 1,
                            .busy = now.busy,
                            .what = std::move(now.what),
                            .deadline_seconds = kTimesExpected * now.expected_seconds,
                            .lane = now.lane,
                            .begun = std::move(now.begun)};
  });
}

}  // namespace annulus
