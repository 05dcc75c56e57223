#pragma once

#include "model/step_runner.h"

namespace annulus {

/// Mean loss per token over evaluation sequences, on the same mesh as the training; without dropout.
class Evaluator {
 public:
  /// Runs a step that was recorded with `options`. Allocates a second copy of the weights.
  Evaluator(EvaluateStep step, const StepOptions& options, Device& device, CommunicatorLookup communicators,
            ExecutorOptions executor_options = {});

  const EvaluateStep& step() const { return step_; }
  Executor& executor() { return executor_; }
  /// Takes over the weights of a step.
  void copy_weights(const StepRunner& runner);
  /// The loss over the first `sequences` sequences of `read`. The same on all ranks; collective.
  double loss(const SequenceReader& read, std::int64_t sequences);

 private:
  StepOptions options_;
  EvaluateStep step_;
  Executor executor_;
};

}  // namespace annulus
