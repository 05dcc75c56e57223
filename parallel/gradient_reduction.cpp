#include "parallel/gradient_reduction.h"

#include <utility>

#include "runtime/ops/op_table.h"

namespace annulus {
namespace {

/// Puts the program's ops back one by one; behind the op of the last segment that makes a gradient calls `made` for it.
void follow(Program& program, const std::map<ValueId, ValueId>& gradients,
            const std::function<void(ValueId parameter)>& made) {
  std::map<ValueId, ValueId> parameter_of;
  for (const auto& [parameter, gradient] : gradients) parameter_of[gradient] = parameter;
  const std::string scope = program.scope();
  for (Op& op : program.take_ops()) {
    std::vector<ValueId> parameters;
    for (ValueId output : op.outputs)
      if (const auto found = parameter_of.find(output); found != parameter_of.end())
        parameters.push_back(found->second);
    program.continue_as(op);
    program.restore(std::move(op));
    for (ValueId parameter : parameters) made(parameter);
  }
  program.set_scope(scope);
}

}  // namespace

std::map<ValueId, ValueId> accumulate_gradients(Program& program, const std::map<ValueId, ValueId>& gradients,
                                                const std::map<ValueId, ValueId>& accumulators) {
  std::map<ValueId, ValueId> sums;
  follow(program, gradients, [&](ValueId parameter) {
    sums[parameter] =
        program.emit_one(std::make_shared<Accumulate>(), {accumulators.at(parameter), gradients.at(parameter)});
  });
  return sums;
}

void in_buckets(Program& program, const std::map<ValueId, ValueId>& gradients,
                const std::function<GradientClass(ValueId parameter)>& class_of,
                const std::function<bool(const GradientClass&, const GradientBucket&)>& is_full,
                const std::function<void(const GradientClass&, const GradientBucket&)>& record) {
  std::map<GradientClass, GradientBucket> open;
  const auto close = [&](const GradientClass& which, GradientBucket& bucket) {
    if (bucket.parameters.empty()) return;
    const std::string scope = program.scope();
    program.set_phase(Phase::reduction);  // the next op that is put back sets its own
    program.set_scope("gradients");
    record(which, std::exchange(bucket, {}));
    program.set_scope(scope);
  };
  follow(program, gradients, [&](ValueId parameter) {
    const GradientClass which = class_of(parameter);
    if (which.reduced.empty()) return;
    GradientBucket& bucket = open[which];
    const ValueType& type = program.type(gradients.at(parameter));
    bucket.parameters.push_back(parameter);
    bucket.elements += type.shape.elements();
    bucket.bytes += type.bytes();
    if (is_full(which, bucket)) close(which, bucket);
  });
  for (auto& [which, bucket] : open) close(which, bucket);
}

std::map<ValueId, ValueId> reduce_gradients(Program& program, const std::map<ValueId, ValueId>& gradients,
                                            std::int64_t bucket_bytes) {
  std::map<ValueId, ValueId> reduced = gradients;
  in_buckets(
      program, gradients,
      [&](ValueId parameter) {
        return GradientClass{partial_axes(program.mesh(), program.type(gradients.at(parameter))), {}};
      },
      [&](const GradientClass&, const GradientBucket& bucket) { return bucket.bytes >= bucket_bytes; },
      [&](const GradientClass& which, const GradientBucket& bucket) {
        std::vector<ValueId> values;
        for (ValueId parameter : bucket.parameters) values.push_back(gradients.at(parameter));
        const auto sums = program.emit(
            std::make_shared<AllReduce>(which.reduced, Reduction::sum, AllReduce::Storage::in_place, values.size()),
            values);
        for (std::size_t i = 0; i < sums.size(); ++i) reduced[bucket.parameters[i]] = sums[i];
      });
  return reduced;
}

ValueId global_sum_squares(Program& program, std::span<const ValueId> gradients) {
  std::map<AxisSet, std::vector<ValueId>> classes;
  for (ValueId gradient : gradients) classes[sharded_axes(program.mesh(), program.type(gradient))].push_back(gradient);
  std::map<AxisSet, ValueId> sums;  // all before the first is waited for
  for (const auto& [axes, members] : classes) sums[axes] = program.emit_one(std::make_shared<SumSquares>(), members);
  ValueId total = kNoValue;
  for (const auto& [axes, squares] : sums) {
    const ValueId sum =
        axes.empty() ? squares : program.emit_one(std::make_shared<AllReduce>(axes, Reduction::sum), {squares});
    total = total == kNoValue ? sum : program.emit_one(std::make_shared<Add>(), {total, sum});
  }
  return total;
}

}  // namespace annulus
