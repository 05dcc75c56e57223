#include "runtime/program/program.h"

#include <fmt/format.h>

#include "runtime/core/error.h"
#include "runtime/core/random.h"

namespace annulus {

std::string_view name_of(Phase phase) {
  switch (phase) {
    case Phase::forward:
      return "forward";
    case Phase::backward:
      return "backward";
    case Phase::reduction:
      return "reduction";
    case Phase::update:
      return "update";
  }
  return "?";
}

Program::Program(MeshAxes mesh) : mesh_(std::move(mesh)), segments_{{"step", 1}} {}

ValueId Program::leaf(const std::string& name, Role role, DType dtype, const Shape& global, const Placements& places) {
  const ValueType type = local_type(mesh_, name, dtype, global, places);
  const auto found = leaves_.find(name);
  if (found != leaves_.end()) {
    const Value& known = value(found->second);
    if (known.type != type || known.role != role)
      throw ShapeError(fmt::format("{} was declared as {} and is now asked for as {}", name,
                                   describe(mesh_, known.type), describe(mesh_, type)));
    return found->second;
  }
  const auto id = static_cast<ValueId>(values_.size());
  values_.push_back({name, type, role, -1});
  leaves_.emplace(name, id);
  return id;
}

ValueId Program::find_leaf(const std::string& name) const {
  const auto found = leaves_.find(name);
  return found == leaves_.end() ? kNoValue : found->second;
}

void Program::refuse(const OpDefinition& definition, const std::vector<ValueId>& inputs, int axis) const {
  std::string operands;
  for (ValueId id : inputs)
    operands += fmt::format("{}{} is {}", operands.empty() ? "" : ", ", value(id).name,
                            type(id).places[static_cast<std::size_t>(axis)].str());
  throw PlacementError(
      fmt::format("{}{} over axis {}: {}; no rule allows this, so the result would be wrong; reduce, gather or slice "
                  "an operand first",
                  scope_.empty() ? "" : scope_ + ": ", definition.name(), mesh_[axis].name, operands));
}

std::vector<ValueType> Program::infer(const OpDefinition& definition, const std::vector<ValueId>& inputs) const {
  std::vector<ValueType> types;
  for (ValueId id : inputs) types.push_back(type(id));
  std::vector<Placements> places;
  for (int axis = 0; axis < mesh_.count(); ++axis) {
    if (mesh_[axis].size == 1) continue;  // an axis of one rank constrains nothing
    std::vector<Placement> on_axis;
    for (const ValueType& input : types) on_axis.push_back(input.places[static_cast<std::size_t>(axis)]);
    const auto placed = definition.place(mesh_, axis, on_axis, types);
    if (!placed) refuse(definition, inputs, axis);
    places.resize(placed->size());
    for (std::size_t i = 0; i < placed->size(); ++i) places[i][static_cast<std::size_t>(axis)] = (*placed)[i];
  }
  std::vector<ValueType> outputs;
  try {
    outputs = definition.infer(mesh_, types);
  } catch (const ShapeError& error) {
    throw ShapeError(fmt::format("{}{}: {}", scope_.empty() ? "" : scope_ + ": ", definition.name(), error.what()));
  }
  if (!places.empty() && places.size() != outputs.size())
    throw InternalError(
        fmt::format("{}: placement and shape rules disagree on the number of outputs", definition.name()));
  for (std::size_t i = 0; i < places.size(); ++i) outputs[i].places = places[i];
  return outputs;
}

std::vector<ValueId> Program::emit(OpPointer definition, std::vector<ValueId> inputs, std::vector<ValueId> outputs) {
  const std::vector<ValueType> types = infer(*definition, inputs);
  outputs.resize(types.size(), kNoValue);
  for (std::size_t i = 0; i < types.size(); ++i) {
    if (outputs[i] == kNoValue) {
      outputs[i] = static_cast<ValueId>(values_.size());
      values_.push_back({fmt::format("%{}", outputs[i]), types[i], Role::activation, op_count()});
    } else if (types[i] != type(outputs[i])) {
      throw PlacementError(fmt::format("{}: {} is {}, and the op that now makes it gives {}", definition->name(),
                                       value(outputs[i]).name, describe(mesh_, type(outputs[i])),
                                       describe(mesh_, types[i])));
    }
    values_[static_cast<std::size_t>(outputs[i])].producer = op_count();
  }
  ops_.push_back({std::move(definition), std::move(inputs), outputs, scope_, phase_, segment_});
  return outputs;
}

ValueId Program::emit_one(OpPointer definition, std::vector<ValueId> inputs) {
  const std::vector<ValueId> outputs = emit(std::move(definition), std::move(inputs));
  if (outputs.size() != 1) throw InternalError("emit_one: the op has several outputs");
  return outputs.front();
}

void Program::begin_segment(const std::string& name, int repeat) {
  const bool unused = ops_.empty() && segments_.size() == 1;
  if (unused) segments_.clear();
  segments_.push_back({name, repeat});
  segment_ = static_cast<int>(segments_.size()) - 1;
}

std::vector<Op> Program::take_ops() { return std::exchange(ops_, {}); }

void Program::restore(Op op) {
  for (ValueId id : op.outputs) values_[static_cast<std::size_t>(id)].producer = op_count();
  ops_.push_back(std::move(op));
}

void Program::continue_as(const Op& op) {
  scope_ = op.scope;
  phase_ = op.phase;
  segment_ = op.segment;
}

Scope::Scope(Program& program, const std::string& name) : program_(program), outer_(program.scope()) {
  program_.set_scope(outer_.empty() ? name : outer_ + "." + name);
}
Scope::~Scope() { program_.set_scope(outer_); }

std::uint64_t communication_hash(const Program& program) {
  std::string text;
  for (const Op& op : program.ops()) {
    const auto call = op.definition->collective();
    if (!call) continue;
    const Segment& segment = program.segments()[static_cast<std::size_t>(op.segment)];
    text +=
        fmt::format("{} {} {}x{}", op.definition->name(), op.definition->attributes(), segment.name, segment.repeat);
    for (ValueId id : op.inputs) text += fmt::format(" {}", program.type(id).bytes());
    text += fmt::format(" {}\n", program.mesh().label(call->axes));
  }
  return stream_id(text);
}

}  // namespace annulus
