#include "model/verify.h"

#include <algorithm>
#include <cmath>

#include "runtime/core/random.h"

namespace annulus {
namespace {

constexpr int kUpdates = 2;
constexpr double kLearningRate = 1e-3;

/// Of `whole`, what this rank's value of the parameter should hold.
std::vector<double> shard_of(const StepRunner& runner, const Parameter& parameter, const WholeValues& whole) {
  ValueType type = runner.step().program.type(parameter.value);
  type.dtype = DType::f64;
  std::vector<double> shard(static_cast<std::size_t>(type.shape.elements()));
  take_shard(runner.mesh(), parameter, type, reinterpret_cast<const std::byte*>(whole.at(parameter.name).data()),
             reinterpret_cast<std::byte*>(shard.data()));
  return shard;
}

Communicator& no_communicator(AxisSet) { throw InternalError("a program of one rank asks for a communicator"); }

}  // namespace

double Deviation::worst() const {
  const double largest = std::max({loss, norm, gradient});
  return std::isfinite(loss + norm + gradient) ? largest : INFINITY;
}

StepOptions one_rank_options(const StepOptions& options, int dp) {
  StepOptions alone = options;
  alone.micro_sequences = options.micro_sequences * dp;
  alone.sequence_parallel = SequenceParallel::off;
  return alone;
}

ReferenceStep take_reference_step(const StepOptions& options, Device& device, std::int64_t step_number,
                                  const SequenceReader& read) {
  StepRunner runner(make_mesh({}, 0), options, Tail::gradients, device, no_communicator);
  runner.initialize();
  runner.run(step_number, {}, read);
  ReferenceStep reference{runner.summary(), {}, 0};
  for (const Parameter& parameter : runner.step().parameters) {
    std::vector<double> gradient = runner.gradient(parameter);
    gradient.resize(static_cast<std::size_t>(parameter.shape.elements()));  // padding is behind the last row
    for (double value : gradient) reference.largest_gradient = std::max(reference.largest_gradient, std::abs(value));
    reference.gradients[parameter.name] = std::move(gradient);
  }
  return reference;
}

Deviation deviation_from(const ReferenceStep& reference, const StepRunner& runner) {
  const StepSummary got = runner.summary();
  Deviation deviation;
  deviation.loss = std::abs(got.loss / reference.summary.loss - 1);
  deviation.norm = std::abs(got.gradient_norm / reference.summary.gradient_norm - 1);
  for (const Parameter& parameter : runner.step().parameters) {
    const std::vector<double> owned = runner.gradient(parameter);
    const std::vector<double> expected = shard_of(runner, parameter, reference.gradients);
    double largest = 0;
    const auto first = static_cast<std::size_t>(runner.owned(parameter).first);
    for (std::size_t i = 0; i < owned.size(); ++i) {
      const double error = std::abs(owned[i] - expected[first + i]) / reference.largest_gradient;
      if (!(error <= largest)) largest = std::isnan(error) ? INFINITY : error;
    }
    deviation.by_parameter.push_back(largest);
    if (largest <= deviation.gradient) continue;
    deviation.gradient = largest;
    deviation.parameter = parameter.name;
  }
  return deviation;
}

void take_updates(StepRunner& runner, const SequenceReader& read) {
  const auto& optimizer = runner.options().optimizer;
  for (int step = 1; step <= kUpdates; ++step)
    runner.run(step, {kLearningRate, 1 - std::pow(optimizer.beta1, step), 1 - std::pow(optimizer.beta2, step)}, read);
}

WholeValues take_reference_updates(const StepOptions& options, Device& device, const SequenceReader& read) {
  StepRunner runner(make_mesh({}, 0), options, Tail::update, device, no_communicator);
  runner.initialize();
  take_updates(runner, read);
  WholeValues weights;
  for (const Parameter& parameter : runner.step().parameters) {
    std::vector<double> values = read_floats(runner.executor(), parameter.value);
    values.resize(static_cast<std::size_t>(parameter.shape.elements()));  // padding is behind the last row
    weights[parameter.name] = std::move(values);
  }
  return weights;
}

std::size_t first_comparable(const std::string& parameter, std::size_t elements) {
  return parameter.ends_with("key_value.bias") ? elements / 2 : 0;
}

double update_deviation(const WholeValues& reference, const StepRunner& runner) {
  double largest = 0;
  for (const Parameter& parameter : runner.step().parameters) {
    const std::vector<double> expected = shard_of(runner, parameter, reference);
    const std::vector<double> got = read_floats(runner.executor(), parameter.value);
    for (std::size_t i = first_comparable(parameter.name, got.size()); i < got.size(); ++i) {
      const double error = std::abs(got[i] - expected[i]) / kLearningRate;
      if (!(error <= largest)) largest = std::isnan(error) ? INFINITY : error;
    }
  }
  return largest;
}

SequenceReader random_sequences(std::uint64_t seed, std::int64_t vocabulary) {
  return [seed, vocabulary](std::int64_t index, std::span<std::int32_t> ids, std::span<std::int32_t> targets,
                            std::span<double> weights) {
    const PhiloxKey key = stream_key(seed, "random_sequences", static_cast<std::uint64_t>(index));
    const auto token = [&](std::uint64_t position) {
      return static_cast<std::int32_t>(random_bits(key, position) % static_cast<std::uint64_t>(vocabulary));
    };
    for (std::size_t i = 0; i < ids.size(); ++i) {
      ids[i] = token(i);
      targets[i] = token(i + 1);
      const std::uint64_t kind = random_bits(key, i + (std::uint64_t{1} << 40)) % 8;
      weights[i] = kind == 0 ? 0.0 : kind == 1 ? 0.5 : 1.0;
    }
  };
}

}  // namespace annulus
