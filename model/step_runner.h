#pragma once

#include <array>

#include "model/batch.h"
#include "runtime/execute/executor.h"
#include "runtime/training/loss_scale.h"

namespace annulus {

/// What a step reports of itself, equal on all ranks.
struct StepSummary {
  double gradient_norm = 0;
  double loss = 0;
  double loss_weights = 0;  ///< sum over the global batch
};

/// What changes from step to step: the values of AdamW, and the loss scale.
struct StepHyper {
  double learning_rate = 0;
  double bias_correction1 = 1, bias_correction2 = 1;  ///< 1 - beta^t
  double loss_scale = kInitialLossScale;              ///< where there is loss scaling
};

/// One rank's training step: the recorded program, its executor, its weights.
class StepRunner {
 public:
  StepRunner(const MeshAxes& mesh, const StepOptions& options, Tail tail, Device& device,
             CommunicatorLookup communicators, ExecutorOptions executor_options = {});
  /// Runs a step that was recorded with `options`.
  StepRunner(TrainStep step, const StepOptions& options, Device& device, CommunicatorLookup communicators,
             ExecutorOptions executor_options = {});

  const TrainStep& step() const { return step_; }
  Executor& executor() { return executor_; }
  const Executor& executor() const { return executor_; }
  const MeshAxes& mesh() const { return step_.program.mesh(); }
  const StepOptions& options() const { return options_; }

  /// Fills weights from the seed, accumulators and moments with zeros.
  void initialize();
  /// This rank's shard of a parameter, taken from the whole unpadded value; and what this rank holds of the parameter's
  /// master, put into it. Elements are of the masters' type: f32 for halves, else the step's.
  void load(const Parameter& parameter, const std::byte* whole);
  void store(const Parameter& parameter, std::byte* whole) const;

  const StepTrace& run(std::int64_t step_number, const StepHyper& hyper, const SequenceReader& read,
                       Overlap overlap = Overlap::on);
  StepSummary summary() const;
  /// Of this rank's shard of the parameter, row-major, the elements whose summed gradient it has: all of them, unless
  /// the optimizer is sharded.
  OwnedRange owned(const Parameter& parameter) const;
  /// Their mean gradient of the last step, as f64; for steps recorded with Tail::gradients.
  std::vector<double> gradient(const Parameter& parameter) const;

 private:
  struct Owned {
    OwnedRange range;
    ValueId gradient = kNoValue;  ///< that has the range
  };
  Owned find_owned(const Parameter& parameter) const;
  void bind(int micro_batch, std::int64_t step_number, const SequenceReader& read, double loss_scale);

  StepOptions options_;
  TrainStep step_;
  Executor executor_;
  double loss_scale_ = 1;  ///< of the last step's gradients
};

/// Writes a vector of f64 to a float value of the executor, in its dtype; and reads one.
void write_floats(Executor& executor, ValueId id, std::span<const double> values);
std::vector<double> read_floats(const Executor& executor, ValueId id);

/// Fills weights from the seed.
void write_initial_values(Executor& executor, const std::vector<Parameter>& parameters, std::uint64_t seed);

/// Binds a micro-batch's inputs.
void bind_batch(Executor& executor, const BatchInputs& inputs, const LocalBatch& batch, std::int64_t step_number,
                double loss_scale = 1);

}  // namespace annulus
