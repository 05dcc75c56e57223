#pragma once

#include <set>
#include <vector>

#include "runtime/program/program.h"

namespace annulus {

/// What rewrites of a recorded program share: who makes and who reads each value, ops that are changed or removed where
/// they stand. `put_back` gives the program its ops again.
class ProgramRewriter {
 public:
  explicit ProgramRewriter(Program& program);
  void put_back();

 protected:
  enum class State : std::uint8_t { as_it_was, changed, removed };
  static constexpr int kNone = -1;

  static std::size_t at(ValueId id) { return static_cast<std::size_t>(id); }
  int count() const { return static_cast<int>(ops_.size()); }
  Op& op(int index) { return ops_[static_cast<std::size_t>(index)]; }
  const OpDefinition& definition(int index) { return *op(index).definition; }

  /// The op that makes the value, or kNone.
  int producer(ValueId value) const { return producers_[at(value)]; }
  const std::vector<int>& readers(ValueId value) const { return readers_[at(value)]; }
  /// The op of the same segment that makes `value` for op `reader` alone, or kNone.
  int sole_producer(ValueId value, int reader);
  /// `value` exists when op `index` begins, and waiting for it there delays nothing.
  bool is_at_hand(ValueId value, int index);
  /// No op of [first, last) but `but` reads the memory of `value`.
  bool unread(ValueId value, int first, int last, int but);
  bool may_be_overwritten(ValueId value);
  /// No op of [first, last) writes to memory that op `index` reads.
  bool keeps_operands(int index, int first, int last);

  /// Op `index` becomes `definition` with the further input `operand`, and makes `output` as its first.
  void change(int index, OpPointer definition, ValueId operand, ValueId output);
  void make(int index, ValueId output);
  /// Op `index` becomes another altogether.
  void replace(int index, OpPointer definition, std::vector<ValueId> inputs, std::vector<ValueId> outputs);
  void remove(int index);
  void share_storage(ValueId value, ValueId with);

 private:
  Program& program_;
  std::set<ValueId> kept_;
  std::vector<int> storage_;
  std::vector<Op> ops_;
  std::vector<State> state_;
  std::vector<int> producers_;
  std::vector<std::vector<int>> readers_;
};

}  // namespace annulus
