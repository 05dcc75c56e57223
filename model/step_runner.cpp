#include "model/step_runner.h"

#include <algorithm>

#include "model/weights.h"

namespace annulus {

void write_floats(Executor& executor, ValueId id, std::span<const double> values) {
  dispatch_float(executor.program().type(id).dtype, [&](auto zero) {
    const std::vector<decltype(zero)> converted(values.begin(), values.end());
    executor.write(id, converted.data());
  });
}

std::vector<double> read_floats(const Executor& executor, ValueId id) {
  const ValueType& type = executor.program().type(id);
  return dispatch_stored(type.dtype, [&](auto zero) {
    std::vector<decltype(zero)> raw(static_cast<std::size_t>(type.shape.elements()));
    executor.read(id, raw.data());
    return std::vector<double>(raw.begin(), raw.end());
  });
}

void write_initial_values(Executor& executor, const std::vector<Parameter>& parameters, std::uint64_t seed) {
  for (const Parameter& parameter : parameters) {
    const ValueType& type = executor.program().type(parameter.value);
    initial_values(executor.program().mesh(), parameter, type, seed,
                   [&](std::int64_t first, std::span<const double> values) {
                     dispatch_float(wide(type.dtype), [&](auto zero) {
                       const std::vector<decltype(zero)> converted(values.begin(), values.end());
                       write_weights(executor, parameter, reinterpret_cast<const std::byte*>(converted.data()), first,
                                     std::ssize(converted));
                     });
                   });
  }
}

void bind_batch(Executor& executor, const BatchInputs& inputs, const LocalBatch& batch, std::int64_t step_number,
                double loss_scale) {
  executor.write(inputs.ids, batch.ids.data());
  executor.write(inputs.targets, batch.targets.data());
  executor.write(inputs.positions, batch.positions.data());
  executor.write(inputs.row_ids, batch.row_ids.data());
  write_floats(executor, inputs.weights, batch.weights);
  if (inputs.gradient_weights != kNoValue) {
    std::vector<double> scaled(batch.weights.begin(), batch.weights.end());
    for (double& weight : scaled) weight *= loss_scale;
    write_floats(executor, inputs.gradient_weights, scaled);
  }
  const auto step = static_cast<std::int32_t>(step_number);
  executor.write(inputs.step, &step);
}

StepRunner::StepRunner(const MeshAxes& mesh, const StepOptions& options, Tail tail, Device& device,
                       CommunicatorLookup communicators, ExecutorOptions executor_options)
    : StepRunner(record_train_step(mesh, options, tail), options, device, std::move(communicators), executor_options) {}

StepRunner::StepRunner(TrainStep step, const StepOptions& options, Device& device, CommunicatorLookup communicators,
                       ExecutorOptions executor_options)
    : options_(options),
      step_(std::move(step)),
      executor_(step_.program, device, std::move(communicators), executor_options) {}

void StepRunner::initialize() {
  for (const auto& [name, leaf] : step_.program.leaves())
    if (step_.program.value(leaf).role == Role::state) executor_.clear(leaf);
  write_initial_values(executor_, step_.parameters, options_.seed);  // masters too, which are state
}

void StepRunner::load(const Parameter& parameter, const std::byte* whole) {
  const ValueType type = master_type(step_.program, parameter);
  std::vector<std::byte> local(static_cast<std::size_t>(type.bytes()));
  take_shard(mesh(), parameter, type, whole, local.data());
  write_weights(executor_, parameter, local.data(), 0, type.shape.elements());
}

void StepRunner::store(const Parameter& parameter, std::byte* whole) const {
  const OwnedRange range = master_range(step_.program, mesh(), parameter);
  put_shard(mesh(), parameter, master_type(step_.program, parameter), read_weights(executor_, parameter).data(),
            range.first, range.count, whole);
}

const StepTrace& StepRunner::run(std::int64_t step_number, const StepHyper& hyper, const SequenceReader& read,
                                 Overlap overlap) {
  loss_scale_ = step_.loss_scale == kNoValue ? 1 : hyper.loss_scale;
  const auto bind_segment = [&](const Segment& segment, int iteration) {
    if (segment.name == "body") bind(iteration, step_number, read, loss_scale_);
    if (segment.name == "last_body") bind(options_.micro_batches - 1, step_number, read, loss_scale_);
    if (segment.name != "tail") return;
    if (step_.loss_scale != kNoValue) write_floats(executor_, step_.loss_scale, std::array{loss_scale_});
    if (step_.hyper != kNoValue)
      write_floats(executor_, step_.hyper,
                   std::array{hyper.learning_rate, hyper.bias_correction1, hyper.bias_correction2, 0.0});
  };
  return executor_.run(bind_segment, overlap);
}

void StepRunner::bind(int micro_batch, std::int64_t step_number, const SequenceReader& read, double loss_scale) {
  bind_batch(executor_, step_.inputs, assemble_batch(mesh(), options_, micro_batch, read), step_number, loss_scale);
}

StepSummary StepRunner::summary() const {
  const std::vector<double> values = read_floats(executor_, step_.summary);
  return {values[1], values[2], values[3]};
}

StepRunner::Owned StepRunner::find_owned(const Parameter& parameter) const {
  const auto whole = step_.gradients.find(parameter.value);
  if (whole != step_.gradients.end())
    return {{0, step_.program.type(parameter.value).shape.elements(), 0}, whole->second};
  for (const OptimizerBucket& bucket : step_.buckets)
    if (std::find(bucket.parameters.begin(), bucket.parameters.end(), parameter.value) != bucket.parameters.end())
      return {owned_range(step_.program, bucket, parameter.value), bucket.gradient};
  throw InternalError(parameter.name + " has no gradient");
}

OwnedRange StepRunner::owned(const Parameter& parameter) const { return find_owned(parameter).range; }

std::vector<double> StepRunner::gradient(const Parameter& parameter) const {
  const auto [range, gradient] = find_owned(parameter);
  if (range.count == 0) return {};
  const std::vector<double> part = read_floats(executor_, gradient);
  const auto begin = part.begin() + range.in_part;
  std::vector<double> values(begin, begin + range.count);
  const double weights = summary().loss_weights * loss_scale_;
  for (double& value : values) value /= weights;
  return values;
}

}  // namespace annulus
