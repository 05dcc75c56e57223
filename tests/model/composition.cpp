#include "tests/model/composition.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <iostream>
#include <mutex>
#include <random>

#include "collectives/thread_communicator.h"
#include "runtime/cpu/device.h"

namespace annulus::testing {
namespace {

/// The step number that tests take: any but 0, which dropout's streams might forget.
constexpr std::int64_t kStep = 7;

SequenceReader sequences_of(const StepOptions& options) {
  return random_sequences(options.seed, options.model.vocabulary);
}

template <class T>
void append(Bits& bits, const std::vector<T>& values) {
  const auto* begin = reinterpret_cast<const std::byte*>(values.data());
  bits.insert(bits.end(), begin, begin + values.size() * sizeof(T));
}

void append(Bits& bits, const StepSummary& summary) {
  append(bits, std::vector{summary.loss, summary.gradient_norm, summary.loss_weights});
}

/// Throws where a row of padding is not zero.
void check_padding(const StepRunner& runner, const Parameter& parameter) {
  const ValueType& type = runner.step().program.type(parameter.value);
  const std::vector<double> local = read_floats(runner.executor(), parameter.value);
  const std::int64_t first = shard_offset(runner.mesh(), type, 0), columns = type.shape.columns();
  for (std::int64_t row = 0; row < type.shape.rows(); ++row)
    for (std::int64_t column = 0; column < columns && first + row >= parameter.shape[0]; ++column)
      if (local[static_cast<std::size_t>(row * columns + column)] != 0)
        throw InternalError(fmt::format("{}: padding row {} is not zero", parameter.name, first + row));
}

}  // namespace

StepOptions small_step(std::uint64_t seed) {
  StepOptions options;
  options.model = {.layers = 2,
                   .hidden = 24,
                   .heads = 12,
                   .kv_heads = 12,
                   .head_dim = 4,
                   .ffn = 48,
                   .vocabulary = 37,
                   .vocabulary_padding = 4,
                   .block_size = 24,
                   .initial_std = 0.3,
                   .dropout = {}};
  options.dtype = DType::f64;
  options.sequence_length = 24;
  options.micro_sequences = 2;
  options.bucket_bytes = 4096;
  options.seed = seed;
  return options;
}

void on_ranks(const Composition& composition, Tail tail,
              const std::function<void(StepRunner& runner, int rank)>& body) {
  MeshShape shape = composition.mesh;
  shape.kv_heads = static_cast<int>(composition.options.model.kv_heads);
  run_ranks(shape.ranks(), [&](Communicator& world) {
    const MeshAxes mesh = make_mesh(shape, world.rank());
    Groups groups(world, mesh);
    CpuDevice device(1);
    StepRunner runner(record_train_step(mesh, composition.options, tail, composition.filter), composition.options,
                      device, groups.lookup(), composition.executor);
    runner.initialize();
    body(runner, world.rank());
  });
}

Deviation deviation_from_one_rank(const Composition& composition) {
  const SequenceReader read = sequences_of(composition.options);
  CpuDevice device(1);
  const ReferenceStep reference =
      take_reference_step(one_rank_options(composition.options, composition.mesh.dp), device, kStep, read);
  Deviation worst;
  std::mutex mutex;
  on_ranks(composition, Tail::gradients, [&](StepRunner& runner, int) {
    runner.run(kStep, {}, read, composition.overlap);
    const Deviation found = deviation_from(reference, runner);
    const std::lock_guard lock(mutex);
    worst = std::max(worst, found);
  });
  return worst;
}

std::vector<Bits> gradient_bits(const Composition& composition) {
  std::vector<Bits> bits(static_cast<std::size_t>(composition.mesh.ranks()));
  on_ranks(composition, Tail::gradients, [&](StepRunner& runner, int rank) {
    runner.run(kStep, {}, sequences_of(composition.options), composition.overlap);
    Bits& mine = bits[static_cast<std::size_t>(rank)];
    append(mine, runner.summary());
    for (const Parameter& parameter : runner.step().parameters) append(mine, runner.gradient(parameter));
  });
  return bits;
}

std::vector<Bits> weight_bits(const Composition& composition, int steps) {
  std::vector<Bits> bits(static_cast<std::size_t>(composition.mesh.ranks()));
  on_ranks(composition, Tail::update, [&](StepRunner& runner, int rank) {
    Bits& mine = bits[static_cast<std::size_t>(rank)];
    for (int step = 1; step <= steps; ++step) {
      runner.run(step, hyper_of(runner.options(), step, 1e-2), sequences_of(runner.options()), composition.overlap);
      append(mine, runner.summary());
    }
    const TrainStep& step = runner.step();
    std::vector<ValueId> values = step.moments;
    for (const Parameter& parameter : step.parameters) values.push_back(parameter.value);
    for (ValueId id : values) append(mine, read_floats(runner.executor(), id));
  });
  return bits;
}

StepHyper hyper_of(const StepOptions& options, int step, double learning_rate) {
  return {learning_rate, 1 - std::pow(options.optimizer.beta1, step), 1 - std::pow(options.optimizer.beta2, step)};
}

std::map<std::string, std::vector<double>> weights_after(const Composition& composition, int steps,
                                                         double learning_rate) {
  std::map<std::string, std::vector<double>> weights;
  std::mutex mutex;
  on_ranks(composition, Tail::update, [&](StepRunner& runner, int) {
    for (int step = 1; step <= steps; ++step)
      runner.run(step, hyper_of(runner.options(), step, learning_rate), sequences_of(runner.options()));
    for (const Parameter& parameter : runner.step().parameters) {
      check_padding(runner, parameter);
      const std::lock_guard lock(mutex);
      auto& into = weights[parameter.name];
      into.resize(static_cast<std::size_t>(parameter.shape.elements()), NAN);
      runner.store(parameter, reinterpret_cast<std::byte*>(into.data()));
    }
  });
  return weights;
}

std::string describe(const Composition& composition) {
  const StepOptions& options = composition.options;
  const ModelConfig& model = options.model;
  return fmt::format(
      "dp{} cp{} tp{} {} sp={} micro={}x{} S={} L={} D={} A={} G={} H={} F={} V={} K={} dropout={}/{}/{} bucket={} "
      "{} zero1={} progress={} overlap={} disturb={} seed={}",
      composition.mesh.dp, composition.mesh.cp, composition.mesh.tp, name_of(options.layout),
      options.sequence_parallel == SequenceParallel::on ? "on" : "off", options.micro_batches, options.micro_sequences,
      options.sequence_length, model.layers, model.hidden, model.heads, model.kv_heads, model.head_dim, model.ffn,
      model.vocabulary, model.block_size, model.dropout.embedding, model.dropout.attention, model.dropout.residual,
      options.bucket_bytes, name_of(options.dtype),
      options.optimizer_sharding == OptimizerSharding::zero1 ? "on" : "off",
      composition.executor.progress == Progress::thread ? "thread" : "poll",
      composition.overlap == Overlap::on ? "on" : "off", composition.executor.disturb_seed.value_or(0), options.seed);
}

std::uint64_t fresh_seed() {
  const std::uint64_t seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  return seed;
}

}  // namespace annulus::testing
