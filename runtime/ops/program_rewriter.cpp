#include "runtime/ops/program_rewriter.h"

#include <algorithm>

#include "runtime/program/schedule.h"

namespace annulus {

ProgramRewriter::ProgramRewriter(Program& program)
    : program_(program),
      kept_(program.kept().begin(), program.kept().end()),
      storage_(storage_of_values(program)),
      ops_(program.take_ops()),
      state_(ops_.size(), State::as_it_was),
      producers_(program.values().size(), kNone),
      readers_(program.values().size()) {
  for (int i = 0; i < count(); ++i) {
    for (ValueId id : op(i).inputs) readers_[at(id)].push_back(i);
    for (ValueId id : op(i).outputs) producers_[at(id)] = i;
  }
}

void ProgramRewriter::put_back() {
  for (int i = 0; i < count(); ++i) {
    const State state = state_[static_cast<std::size_t>(i)];
    if (state == State::as_it_was) program_.restore(std::move(op(i)));
    if (state != State::changed) continue;
    program_.continue_as(op(i));
    program_.emit(op(i).definition, op(i).inputs, op(i).outputs);
  }
}

int ProgramRewriter::sole_producer(ValueId value, int reader) {
  const int made_by = producer(value);
  const bool sole = made_by != kNone && readers(value).size() == 1 && !kept_.contains(value) &&
                    op(made_by).segment == op(reader).segment;
  return sole ? made_by : kNone;
}

bool ProgramRewriter::is_at_hand(ValueId value, int index) {
  const int made_by = producer(value);
  return made_by == kNone || (made_by < index && !definition(made_by).collective());
}

bool ProgramRewriter::unread(ValueId value, int first, int last, int but) {
  for (int i = first; i < last; ++i) {
    if (i == but || state_[static_cast<std::size_t>(i)] == State::removed) continue;
    for (ValueId id : op(i).inputs)
      if (storage_[at(id)] == storage_[at(value)]) return false;
  }
  return true;
}

bool ProgramRewriter::may_be_overwritten(ValueId value) {
  for (ValueId id : kept_)
    if (storage_[at(id)] == storage_[at(value)]) return false;
  return program_.value(storage_[at(value)]).role == Role::activation;
}

bool ProgramRewriter::keeps_operands(int index, int first, int last) {
  for (int i = first; i < last; ++i) {
    if (state_[static_cast<std::size_t>(i)] == State::removed || definition(i).is_view()) continue;
    for (const Alias& alias : definition(i).aliases()) {
      const int overwritten = storage_[at(op(i).inputs[static_cast<std::size_t>(alias.input)])];
      for (ValueId id : op(index).inputs)
        if (storage_[at(id)] == overwritten) return false;
    }
  }
  return true;
}

void ProgramRewriter::change(int index, OpPointer definition, ValueId operand, ValueId output) {
  op(index).definition = std::move(definition);
  op(index).inputs.push_back(operand);
  readers_[at(operand)].push_back(index);
  make(index, output);
}

void ProgramRewriter::make(int index, ValueId output) {
  op(index).outputs.front() = output;
  producers_[at(output)] = index;
  state_[static_cast<std::size_t>(index)] = State::changed;
}

void ProgramRewriter::replace(int index, OpPointer definition, std::vector<ValueId> inputs,
                              std::vector<ValueId> outputs) {
  remove(index);
  op(index).definition = std::move(definition);
  op(index).inputs = std::move(inputs);
  op(index).outputs = std::move(outputs);
  for (ValueId id : op(index).inputs) readers_[at(id)].push_back(index);
  for (ValueId id : op(index).outputs) producers_[at(id)] = index;
  state_[static_cast<std::size_t>(index)] = State::changed;
}

void ProgramRewriter::remove(int index) {
  for (ValueId id : op(index).inputs) std::erase(readers_[at(id)], index);
  state_[static_cast<std::size_t>(index)] = State::removed;
}

void ProgramRewriter::share_storage(ValueId value, ValueId with) {
  const int from = storage_[at(value)], to = storage_[at(with)];
  std::replace(storage_.begin(), storage_.end(), from, to);
}

}  // namespace annulus
