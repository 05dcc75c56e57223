#pragma once

#include <map>
#include <string>
#include <vector>

#include "runtime/program/op.h"

namespace annulus {

/// Where a value's storage comes from.
enum class Role : std::uint8_t {
  activation,  ///< made by an op; lives in the arena while somebody needs it
  parameter,   ///< trained weight; persistent
  state,       ///< accumulator or optimizer state; persistent
  input,       ///< bound anew before every run of a segment
};

struct Value {
  std::string name;
  ValueType type;
  Role role = Role::activation;
  int producer = -1;  ///< index of the op that makes it, -1 for a leaf
};

/// Ops that run `repeat` times before the next segment begins.
struct Segment {
  std::string name;
  int repeat = 1;
};

/// One training step of one rank: an ordered list of ops on typed values. `emit` is the one door: it infers types and
/// placements, or refuses with a PlacementError or ShapeError that names the op, the axis and the placements.
class Program {
 public:
  explicit Program(MeshAxes mesh);

  const MeshAxes& mesh() const { return mesh_; }
  const std::vector<Op>& ops() const { return ops_; }
  const Op& op(int index) const { return ops_[static_cast<std::size_t>(index)]; }
  int op_count() const { return static_cast<int>(ops_.size()); }
  const std::vector<Value>& values() const { return values_; }
  const Value& value(ValueId id) const { return values_[static_cast<std::size_t>(id)]; }
  const ValueType& type(ValueId id) const { return value(id).type; }
  const std::vector<Segment>& segments() const { return segments_; }

  /// A leaf of `role`, one per name: a second call with the same name returns the first, and throws ShapeError where
  /// the type differs. `global` is the whole value's shape.
  ValueId leaf(const std::string& name, Role role, DType dtype, const Shape& global, const Placements& places = {});
  /// The leaf of that name, or kNoValue.
  ValueId find_leaf(const std::string& name) const;
  const std::map<std::string, ValueId>& leaves() const { return leaves_; }

  /// Records an op; returns its outputs. `outputs` (for rewrites) names values that exist already and that the op now
  /// makes: their types must be what it infers; kNoValue among them stands for a new value.
  std::vector<ValueId> emit(OpPointer definition, std::vector<ValueId> inputs, std::vector<ValueId> outputs = {});
  /// The same for an op of one output.
  ValueId emit_one(OpPointer definition, std::vector<ValueId> inputs);

  /// Keeps a value's memory until the step has ended, so that it can be read then.
  void keep(ValueId id) { kept_.push_back(id); }
  const std::vector<ValueId>& kept() const { return kept_; }

  /// Ops emitted from now on belong to a new segment.
  void begin_segment(const std::string& name, int repeat);
  void set_phase(Phase phase) { phase_ = phase; }
  void set_scope(std::string scope) { scope_ = std::move(scope); }
  const std::string& scope() const { return scope_; }

  /// Takes all ops out, so that a rewrite can put them back, in another order or with others between. Segments stay.
  std::vector<Op> take_ops();
  /// Puts an op back as it was.
  void restore(Op op);
  /// Ops emitted from now on take scope, phase and segment from `op`.
  void continue_as(const Op& op);

 private:
  std::vector<ValueType> infer(const OpDefinition& definition, const std::vector<ValueId>& inputs) const;
  [[noreturn]] void refuse(const OpDefinition& definition, const std::vector<ValueId>& inputs, int axis) const;

  MeshAxes mesh_;
  std::vector<Value> values_;
  std::vector<Op> ops_;
  std::vector<Segment> segments_;
  std::vector<ValueId> kept_;
  std::map<std::string, ValueId> leaves_;
  std::string scope_;
  Phase phase_ = Phase::forward;
  int segment_ = 0;
};

/// Adds a component to the program's scope for as long as it lives: `layers.3` + `attention`.
class Scope {
 public:
  Scope(Program& program, const std::string& name);
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  Program& program_;
  std::string outer_;
};

/// Hash of the sequence of collectives (kind, axes, bytes, segment and its repetitions): equal on all ranks of a mesh,
/// or they would wait for each other for ever.
std::uint64_t communication_hash(const Program& program);

}  // namespace annulus
