#include "model/train_step.h"

#include "parallel/gradient_reduction.h"
#include "parallel/ring_attention.h"
#include "runtime/ops/fusion.h"
#include "runtime/program/schedule.h"

namespace annulus {
namespace {

using Gradients = std::map<ValueId, ValueId>;

class StepRecorder {
 public:
  StepRecorder(const MeshAxes& mesh, const StepOptions& options, CollectiveFilter filter = {})
      : program_(mesh),
        recorder_(program_, std::move(filter)),
        parameters_(program_, options.dtype),
        options_(options) {}

  EvaluateStep evaluate() {
    program_.begin_segment("evaluate", 1);
    const ValueId sums = recorder_.all_reduce(forward(false), mesh_axis::kData);
    program_.keep(sums);
    finish();
    return {std::move(program_), parameters_.all(), inputs_, sums};
  }

  TrainStep train(Tail tail) {
    Gradients accumulators;
    ValueId sums_accumulator = kNoValue;
    if (options_.micro_batches > 1) {
      declare_accumulators(accumulators, sums_accumulator);
      clear(accumulators, sums_accumulator);
      program_.begin_segment("body", options_.micro_batches - 1);
      backward_accumulated(accumulators, sums_accumulator);
    }
    program_.begin_segment("last_body", 1);
    auto [gradients, sums] =
        options_.micro_batches > 1 ? backward_accumulated(accumulators, sums_accumulator) : backward();
    TrainStep step(program_.mesh());
    if (sharded())
      step.buckets = scatter_gradients(program_, gradients, decayed(), options_.bucket_bytes);
    else
      step.gradients = reduce_gradients(program_, gradients, options_.bucket_bytes);
    record_tail(step, sums, tail);
    finish();
    step.program = std::move(program_);
    step.parameters = parameters_.all();
    for (Parameter& parameter : step.parameters)
      if (const auto master = masters_.find(parameter.value); master != masters_.end())
        parameter.master = master->second;
    step.inputs = inputs_;
    return step;
  }

 private:
  bool sharded() const {
    return options_.optimizer_sharding == OptimizerSharding::zero1 && program_.mesh().size(mesh_axis::kData) > 1;
  }

  std::set<ValueId> decayed() const {
    std::set<ValueId> parameters;
    for (const Parameter& parameter : parameters_.all())
      if (parameter.decay == WeightDecay::on) parameters.insert(parameter.value);
    return parameters;
  }

  struct Backward {
    Gradients gradients;
    ValueId sums;
  };

  ValueId forward(bool training) {
    program_.set_phase(Phase::forward);
    program_.set_scope("");
    inputs_ = declare_inputs(program_, options_.dtype, options_.micro_sequences, options_.sequence_length);
    ModelContext context{recorder_,
                         parameters_,
                         TensorParallel(recorder_, options_.sequence_parallel),
                         options_.model,
                         options_.micro_sequences,
                         options_.seed,
                         training};
    return decoder_loss(context, inputs_);
  }

  Backward backward() {
    const int first = program_.op_count();
    const ValueId sums = forward(true);
    return {differentiate(program_, sums, first, gradient_ops()), sums};
  }

  Backward backward_accumulated(const Gradients& accumulators, ValueId sums_accumulator) {
    const Backward now = backward();
    Gradients sums = accumulate_gradients(program_, now.gradients, accumulators);
    program_.set_scope("");
    return {std::move(sums), program_.emit_one(std::make_shared<Accumulate>(), {sums_accumulator, now.sums})};
  }

  /// Accumulators have the placements of the gradients that one micro-batch leaves, which a trial recording tells.
  void declare_accumulators(Gradients& accumulators, ValueId& sums_accumulator) {
    StepRecorder trial(program_.mesh(), options_);
    const Backward once = trial.backward();
    forward_leaves();
    for (const Parameter& parameter : trial.parameters_.all()) {
      const ValueType& type = trial.program_.type(once.gradients.at(parameter.value));
      accumulators[program_.find_leaf(parameter.name)] = state(accumulator_name(parameter.name), type);
    }
    sums_accumulator = state("accumulated.sums", trial.program_.type(once.sums));
  }

  /// Declares parameters and inputs without keeping ops.
  void forward_leaves() {
    forward(true);
    program_.take_ops();
  }

  ValueId state(const std::string& name, const ValueType& like) {
    return program_.leaf(name, Role::state, like.dtype, global_shape(program_.mesh(), like), like.places);
  }

  void clear(const Gradients& accumulators, ValueId sums_accumulator) {
    program_.begin_segment("clear", 1);
    program_.set_scope("accumulators");
    for (const auto& [parameter, accumulator] : accumulators)
      program_.emit_one(std::make_shared<Zero>(), {accumulator});
    program_.emit_one(std::make_shared<Zero>(), {sums_accumulator});
  }

  void record_tail(TrainStep& step, ValueId sums, Tail tail) {
    program_.begin_segment("tail", 1);
    program_.set_phase(Phase::update);
    program_.set_scope("norm");
    std::vector<ValueId> gradients;
    for (const auto& [parameter, gradient] : step.gradients) gradients.push_back(gradient);
    for (const OptimizerBucket& bucket : step.buckets) gradients.push_back(bucket.gradient);
    const ValueId squares = global_sum_squares(program_, gradients);
    const ValueId total = recorder_.all_reduce(sums, mesh_axis::kData);
    std::vector<ValueId> clipped{squares, total};
    auto scaling = Clip::LossScaling::off;
    if (scales_loss(options_.dtype)) {
      scaling = Clip::LossScaling::on;
      step.loss_scale = program_.leaf("inputs.loss_scale", Role::input, DType::f64, {1});
      clipped.push_back(step.loss_scale);
    }
    step.summary = program_.emit_one(std::make_shared<Clip>(options_.clip_norm, scaling), clipped);
    program_.keep(step.summary);
    if (tail == Tail::gradients) {
      for (ValueId gradient : gradients) program_.keep(gradient);
      return;
    }
    program_.set_scope("optimizer");
    step.hyper = program_.leaf("inputs.hyper", Role::input, DType::f64, {4});
    for (OptimizerBucket& bucket : step.buckets) {
      update_bucket(program_, bucket, options_.optimizer, step.summary, step.hyper);
      step.moments.insert(step.moments.end(), {bucket.first_moment, bucket.second_moment});
      if (bucket.master == kNoValue) continue;
      step.masters.push_back(bucket.master);
      for (ValueId parameter : bucket.parameters)
        masters_[parameter] = {bucket.master, bucket.axes, place_in_bucket(program_, bucket, parameter)};
    }
    if (step.buckets.empty()) update_parameters(step);
  }

  void update_parameters(TrainStep& step) {
    for (const WeightDecay decay : {WeightDecay::on, WeightDecay::off}) update_parameters(step, decay);
  }

  /// Those with this weight decay, all by one op.
  void update_parameters(TrainStep& step, WeightDecay decay) {
    std::vector<ValueId> weights, gradients, first_moments, second_moments, copies;
    for (const Parameter& parameter : parameters_.all()) {
      if (parameter.decay != decay) continue;
      ValueType type = program_.type(parameter.value);
      const bool has_master = is_half(type.dtype);
      type.dtype = wide(type.dtype);
      weights.push_back(parameter.value);
      gradients.push_back(step.gradients.at(parameter.value));
      first_moments.push_back(state("first_moment." + parameter.name, type));
      second_moments.push_back(state("second_moment." + parameter.name, type));
      step.moments.insert(step.moments.end(), {first_moments.back(), second_moments.back()});
      if (!has_master) continue;
      copies.push_back(parameter.value);
      weights.back() = state("master." + parameter.name, type);
      step.masters.push_back(weights.back());
      masters_[parameter.value] = {weights.back(), {}, 0};
    }
    if (weights.empty()) return;
    AdamW::Options options = options_.optimizer;
    if (decay == WeightDecay::off) options.weight_decay = 0;
    const auto copy = copies.empty() ? AdamW::WorkingCopy::none : AdamW::WorkingCopy::rounded;
    const auto update = std::make_shared<AdamW>(options, copy, weights.size());
    const std::vector<ValueId> sums{step.summary, step.hyper};
    for (const auto& list : {gradients, first_moments, second_moments, sums, copies})
      weights.insert(weights.end(), list.begin(), list.end());
    program_.emit(update, weights);
  }

  void finish() {
    if (options_.sequence_parallel == SequenceParallel::on) gather_again(program_);
    expand_ring_attention(program_, options_.layout, options_.sequence_length);
    fuse(program_);
    hoist_collectives(program_);
  }

  Program program_;
  Recorder recorder_;
  ParameterTable parameters_;
  const StepOptions& options_;
  BatchInputs inputs_;
  std::map<ValueId, Master> masters_;  // by parameter
};

}  // namespace

std::string accumulator_name(const std::string& parameter) { return "accumulated." + parameter; }

TrainStep record_train_step(const MeshAxes& mesh, const StepOptions& options, Tail tail, CollectiveFilter filter) {
  return StepRecorder(mesh, options, std::move(filter)).train(tail);
}

EvaluateStep record_evaluate_step(const MeshAxes& mesh, const StepOptions& options) {
  return StepRecorder(mesh, options).evaluate();
}

}  // namespace annulus
