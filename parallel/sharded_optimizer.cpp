#include "parallel/sharded_optimizer.h"

#include <fmt/format.h>

#include <algorithm>

#include "parallel/gradient_reduction.h"
#include "runtime/ops/op_table.h"

namespace annulus {
namespace {

/// The values of a bucket, its padding last.
std::vector<ValueId> contents(const OptimizerBucket& bucket) {
  std::vector<ValueId> values = bucket.parameters;
  if (bucket.padding != kNoValue) values.push_back(bucket.padding);
  return values;
}

ValueId state_like(Program& program, const std::string& name, const ValueType& like) {
  return program.leaf(name, Role::state, like.dtype, global_shape(program.mesh(), like), like.places);
}

/// `count` elements behind the parameters of the class, on each rank.
ValueId declare_padding(Program& program, const GradientClass& which, const ValueType& parameter, std::int64_t count,
                        std::size_t number) {
  ValueType type{parameter.dtype, {count, 1}, {}};
  for (int axis = 0; axis < program.mesh().count(); ++axis)
    if (which.sharded.contains(axis)) type.places[static_cast<std::size_t>(axis)] = Placement::sharded(1);
  return state_like(program, fmt::format("padding.{}", number), type);
}

}  // namespace

std::vector<OptimizerBucket> scatter_gradients(Program& program, const std::map<ValueId, ValueId>& gradients,
                                               const std::set<ValueId>& decayed, std::int64_t bucket_bytes) {
  const MeshAxes& mesh = program.mesh();
  std::vector<OptimizerBucket> buckets;
  in_buckets(
      program, gradients,
      [&](ValueId parameter) {
        const ValueType& type = program.type(gradients.at(parameter));
        return GradientClass{partial_axes(mesh, type), sharded_axes(mesh, type), decayed.contains(parameter)};
      },
      [&](const GradientClass& which, const GradientBucket& bucket) {
        return bucket.bytes >= bucket_bytes && bucket.elements % mesh.size(which.reduced) == 0;
      },
      [&](const GradientClass& which, const GradientBucket& bucket) {
        OptimizerBucket made{.axes = which.reduced, .decays = which.optimizer != 0, .parameters = bucket.parameters};
        std::vector<ValueId> values;
        for (ValueId parameter : bucket.parameters) values.push_back(gradients.at(parameter));
        const std::int64_t rest = bucket.elements % mesh.size(which.reduced);
        if (rest != 0) {
          made.padding = declare_padding(program, which, program.type(bucket.parameters.front()),
                                         mesh.size(which.reduced) - rest, buckets.size());
          values.push_back(program.emit_one(std::make_shared<Zero>(which.reduced), {made.padding}));
        }
        made.gradient = program.emit_one(std::make_shared<ScatterBucket>(which.reduced, values.size()), values);
        buckets.push_back(std::move(made));
      });
  return buckets;
}

void update_bucket(Program& program, OptimizerBucket& bucket, AdamW::Options options, ValueId summary, ValueId hyper) {
  const MeshAxes& mesh = program.mesh();
  const ValueType type = program.type(bucket.gradient);
  const std::string name = program.value(bucket.parameters.front()).name;
  bucket.first_moment = state_like(program, "first_moment." + name, type);
  bucket.second_moment = state_like(program, "second_moment." + name, type);
  if (!bucket.decays) options.weight_decay = 0;
  std::vector<ValueId> values = contents(bucket);
  const ValueId part = program.emit_one(
      std::make_shared<BucketPart>(bucket.axes, values.size(), mesh.index(bucket.axes), type.shape[0]), values);
  const bool has_master = is_half(program.type(part).dtype);
  if (has_master) bucket.master = state_like(program, "master." + name, type);
  std::vector<ValueId> inputs{
      has_master ? bucket.master : part, bucket.gradient, bucket.first_moment, bucket.second_moment, summary, hyper};
  if (has_master) inputs.push_back(part);
  const auto copy = has_master ? AdamW::WorkingCopy::rounded : AdamW::WorkingCopy::none;
  const auto updated = program.emit(std::make_shared<AdamW>(options, copy), inputs);
  values.push_back(has_master ? updated.back() : updated.front());
  program.emit(std::make_shared<GatherBucket>(bucket.axes, values.size() - 1), values);
}

std::int64_t place_in_bucket(const Program& program, const OptimizerBucket& bucket, ValueId parameter) {
  std::int64_t begin = 0;
  for (ValueId before : bucket.parameters) {
    if (before == parameter) break;
    begin += program.type(before).shape.elements();
  }
  return begin;
}

OwnedRange owned_range(std::int64_t begin, std::int64_t count, std::int64_t part, int index) {
  const std::int64_t first = part * index;
  const std::int64_t from = std::max(begin, first), to = std::min(begin + count, first + part);
  if (to <= from) return {};
  return {from - begin, to - from, from - first};
}

OwnedRange owned_range(const Program& program, const OptimizerBucket& bucket, ValueId parameter) {
  return owned_range(place_in_bucket(program, bucket, parameter), program.type(parameter).shape.elements(),
                     program.type(bucket.gradient).shape[0], program.mesh().index(bucket.axes));
}

}  // namespace annulus
