#include "parallel/gradient_reduction.h"

#include <functional>

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

struct Bucket {
  std::vector<ValueId> parameters;
  std::int64_t bytes = 0;
};

class BucketReducer {
 public:
  BucketReducer(Program& program, std::map<ValueId, ValueId> gradients, std::int64_t bucket_bytes)
      : program_(program), gradients_(std::move(gradients)), bucket_bytes_(bucket_bytes) {}

  std::map<ValueId, ValueId> run() {
    const std::map<ValueId, ValueId> raw = gradients_;
    follow(program_, raw, [&](ValueId parameter) { take(parameter); });
    for (auto& [axes, bucket] : buckets_) flush(axes, bucket);
    return gradients_;
  }

 private:
  void take(ValueId parameter) {
    const ValueType& type = program_.type(gradients_.at(parameter));
    const AxisSet axes = partial_axes(program_.mesh(), type);
    if (axes.empty()) return;
    Bucket& bucket = buckets_[axes];
    bucket.parameters.push_back(parameter);
    bucket.bytes += type.bytes();
    if (bucket.bytes >= bucket_bytes_) flush(axes, bucket);
  }

  void flush(AxisSet axes, Bucket& bucket) {
    if (bucket.parameters.empty()) return;
    std::vector<ValueId> values;
    for (ValueId parameter : bucket.parameters) values.push_back(gradients_.at(parameter));
    const std::string scope = program_.scope();
    program_.set_phase(Phase::reduction);  // the next op that is put back sets its own
    program_.set_scope("gradients");
    const auto reduced = program_.emit(
        std::make_shared<AllReduce>(axes, Reduction::sum, AllReduce::Storage::in_place, values.size()), values);
    program_.set_scope(scope);
    for (std::size_t i = 0; i < reduced.size(); ++i) gradients_[bucket.parameters[i]] = reduced[i];
    bucket = {};
  }

  Program& program_;
  std::map<ValueId, ValueId> gradients_;
  std::int64_t bucket_bytes_;
  std::map<AxisSet, Bucket> buckets_;
};

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

std::map<ValueId, ValueId> reduce_gradients(Program& program, const std::map<ValueId, ValueId>& gradients,
                                            std::int64_t bucket_bytes) {
  return BucketReducer(program, gradients, bucket_bytes).run();
}

ValueId global_sum_squares(Program& program, const std::map<ValueId, ValueId>& gradients) {
  std::map<AxisSet, ValueId> classes;
  for (const auto& [parameter, gradient] : gradients) {
    const ValueId squares = program.emit_one(std::make_shared<SumSquares>(), {gradient});
    const auto [at, is_new] = classes.try_emplace(partial_axes(program.mesh(), program.type(squares)), squares);
    if (!is_new) at->second = program.emit_one(std::make_shared<Add>(), {at->second, squares});
  }
  ValueId total = kNoValue;
  for (const auto& [axes, squares] : classes) {
    const ValueId sum =
        axes.empty() ? squares : program.emit_one(std::make_shared<AllReduce>(axes, Reduction::sum), {squares});
    total = total == kNoValue ? sum : program.emit_one(std::make_shared<Add>(), {total, sum});
  }
  return total;
}

}  // namespace annulus
