#include "launch/evaluation.h"

#include <algorithm>

#include "parallel/mesh.h"

namespace annulus {

Evaluator::Evaluator(EvaluateStep step, const StepOptions& options, Device& device, CommunicatorLookup communicators,
                     ExecutorOptions executor_options)
    : options_(options),
      step_(std::move(step)),
      executor_(step_.program, device, std::move(communicators), executor_options) {}

void Evaluator::copy_weights(const StepRunner& runner) {
  for (const Parameter& parameter : step_.parameters) {
    const ValueId source = runner.step().program.find_leaf(step_.program.value(parameter.value).name);
    std::vector<std::byte> values(static_cast<std::size_t>(step_.program.type(parameter.value).bytes()));
    runner.executor().read(source, values.data());
    executor_.write(parameter.value, values.data());
  }
}

double Evaluator::loss(const SequenceReader& read, std::int64_t sequences) {
  const std::int64_t batch = options_.micro_sequences * step_.program.mesh()[mesh_axis::dp].size;
  const auto limited = [&](std::int64_t index, std::span<std::int32_t> ids, std::span<std::int32_t> targets,
                           std::span<double> weights) {
    read(index, ids, targets, weights);
    if (index >= sequences) std::fill(weights.begin(), weights.end(), 0.0);
  };
  double loss = 0, weights = 0;
  for (std::int64_t first = 0; first < sequences; first += batch) {
    const int number = static_cast<int>(first / batch);
    executor_.run([&](const Segment&, int) {
      bind_batch(executor_, step_.inputs, assemble_batch(step_.program.mesh(), options_, number, limited), 0);
    });
    const std::vector<double> sums = read_floats(executor_, step_.sums);
    loss += sums[0];
    weights += sums[1];
  }
  return loss / weights;
}

}  // namespace annulus
