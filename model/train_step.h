#pragma once

#include <map>

#include "model/decoder.h"
#include "parallel/layout.h"
#include "parallel/sharded_optimizer.h"
#include "runtime/ops/optimizer.h"

namespace annulus {

/// Everything that fixes the programs of a run but the weights and the data.
struct StepOptions {
  ModelConfig model;         ///< resolved: no zeros left
  DType dtype = DType::f32;  ///< of activations and working weights
  SequenceParallel sequence_parallel = SequenceParallel::off;
  RingLayout layout = RingLayout::zigzag;
  std::int64_t sequence_length = 0;
  std::int64_t micro_sequences = 0;  ///< of a micro-batch, per data-parallel replica
  int micro_batches = 1;
  std::int64_t bucket_bytes = 25'000'000;
  std::uint64_t seed = 0;
  double clip_norm = 1;
  AdamW::Options optimizer;  ///< its weight decay holds for matrices; vectors do not decay
  OptimizerSharding optimizer_sharding = OptimizerSharding::zero1;  ///< where dp x cp is more than one rank
};

/// What a step does behind the backward.
enum class Tail : std::uint8_t {
  update,     ///< norm, clipping, AdamW
  gradients,  ///< norm only: the gradients remain, unnormalised, for `verify`
};

/// The state in which micro-batches gather the gradient of a parameter; there is none for a single micro-batch.
std::string accumulator_name(const std::string& parameter);

/// A recorded step: micro-batches, gradient reductions, tail. Expanded, scheduled, ready for an executor.
struct TrainStep {
  explicit TrainStep(const MeshAxes& mesh) : program(mesh) {}

  Program program;
  std::vector<Parameter> parameters;
  std::map<ValueId, ValueId>
      gradients;  ///< reduced and unnormalised, by parameter; none where the optimizer is sharded
  std::vector<OptimizerBucket> buckets;  ///< with their parts of the gradients, where it is
  std::vector<ValueId> moments;          ///< of each parameter, or bucket: the first, the second
  std::vector<ValueId> masters;          ///< of each parameter, or bucket, where weights are halves
  BatchInputs inputs;
  ValueId hyper = kNoValue;       ///< f64 [4], input: see AdamW
  ValueId loss_scale = kNoValue;  ///< f64 [1], input, where there is loss scaling: see Clip
  ValueId summary = kNoValue;     ///< f64 [4]: see Clip
};

/// Throws ConfigError, ShapeError or PlacementError where model, mesh and sizes do not fit. `filter` changes what the
/// forward asks of other ranks: see Recorder.
TrainStep record_train_step(const MeshAxes& mesh, const StepOptions& options, Tail tail = Tail::update,
                            CollectiveFilter filter = {});

/// A forward pass without dropout that gives the sums of one micro-batch, reduced over dp and cp.
struct EvaluateStep {
  Program program;
  std::vector<Parameter> parameters;
  BatchInputs inputs;
  ValueId sums = kNoValue;  ///< f64 [2] = (weighted loss, weights)
};
EvaluateStep record_evaluate_step(const MeshAxes& mesh, const StepOptions& options);

}  // namespace annulus
