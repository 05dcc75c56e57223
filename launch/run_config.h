#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/config.h"
#include "parallel/layout.h"
#include "parallel/sharded_optimizer.h"
#include "runtime/core/dtype.h"
#include "runtime/cuda/device.h"
#include "runtime/execute/executor.h"
#include "runtime/training/loss_scale.h"
#include "runtime/training/schedule.h"

namespace annulus {

enum class DeviceKind : std::uint8_t { cpu, cuda };

/// How buffers in the memory of GPUs travel.
enum class GpuCommunication : std::uint8_t {
  nccl,
  staged,  ///< through the host's memory and MPI
};

// The settings of a run, as its configuration file groups them. What each means, its unit and its limits stand once, in
// launch/config_fields.cpp, which parses, checks and documents them (docs/configuration.md).

struct ParallelConfig {
  std::int64_t tp = 1, cp = 1, dp = 0;
  bool sequence_parallel = false;
  RingLayout layout = RingLayout::zigzag;
};

struct DataConfig {
  std::string file, validation_file;
  double validation_fraction = 0;
  bool shuffle = true;
};

struct BatchConfig {
  std::int64_t sequence_length = 1024, global_sequences = 8, micro_sequences = 0;
};

struct OptimizerConfig {
  double learning_rate = 6e-4, minimum_learning_rate = 0;
  Decay schedule = Decay::cosine;
  std::int64_t warmup_steps = 0, decay_steps = 0;
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, weight_decay = 0.1, clip_norm = 1;
  OptimizerSharding sharding = OptimizerSharding::zero1;
};

struct TrainingConfig {
  std::int64_t steps = 1000, seed = 1234, evaluate_every = 0, evaluate_batches = 10, export_every = 0;
  std::string initial_weights;
  DType dtype = DType::f32;
  double loss_scale = kInitialLossScale;
  std::int64_t loss_scale_interval = 1000;
};

struct OutputConfig {
  std::string folder;
};

struct DeviceConfig {
  DeviceKind kind = DeviceKind::cpu;
  std::int64_t threads = 0;
  FloatProducts float_products = FloatProducts::exact;
  bool deterministic = false;
  GpuCommunication communication = GpuCommunication::nccl;
  Execution execution = Execution::ops;
  bool share_gpu = false;
  std::string products = {};
};

struct CommunicationConfig {
  Progress progress = Progress::thread;
  std::int64_t bucket_bytes = 25'000'000;
};

struct LogConfig {
  std::string profile;
};

struct RunConfig {
  ModelConfig model;
  ParallelConfig parallel;
  DataConfig data;
  BatchConfig batch;
  OptimizerConfig optimizer;
  TrainingConfig training;
  OutputConfig output;
  DeviceConfig device;
  CommunicationConfig communication;
  LogConfig log;

  std::int64_t ranks() const { return parallel.tp * parallel.cp * parallel.dp; }
  std::int64_t micro_batches() const { return batch.global_sequences / (parallel.dp * batch.micro_sequences); }
};

/// As many ranks as the mesh has, with one replica where dp is open: for commands that need no job.
inline constexpr std::int64_t kRanksOfMesh = 0;

/// The configuration in `text` (JSON; // and /* */ comments allowed) with `overrides` (`path=value`) on top, checked
/// and resolved for `ranks` ranks: every 0 that stands for "what follows from the rest" is filled in, except the
/// vocabulary, which the data tells. `name` is the file's, for messages. Throws ConfigError with every problem found.
RunConfig parse_run_config(std::string_view text, std::string_view name, std::span<const std::string> overrides,
                           std::int64_t ranks);

/// The same of a file.
RunConfig read_run_config(const std::filesystem::path& file, std::span<const std::string> overrides,
                          std::int64_t ranks);

/// The whole configuration as JSON; parses back to the same.
std::string to_json(const RunConfig& config);

/// docs/configuration.md: every setting with its type, default, limits and meaning.
std::string configuration_reference();

}  // namespace annulus
