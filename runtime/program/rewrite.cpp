#include "runtime/program/rewrite.h"

#include <map>

namespace annulus {

void recompute(Program& program, const std::function<bool(const Op&)>& chosen) {
  std::vector<Op> ops = program.take_ops();
  std::map<ValueId, Op> producers;  // outputs of chosen forward ops that no backward op has asked for yet
  std::map<ValueId, ValueId> again;
  for (Op& op : ops) {
    if (op.phase == Phase::forward && chosen(op)) {
      for (ValueId output : op.outputs) producers.emplace(output, op);
    } else if (op.phase == Phase::backward) {
      for (ValueId& input : op.inputs) {
        const auto producer = producers.find(input);
        if (producer != producers.end() && !again.contains(input)) {
          const Op copied = producer->second;
          program.continue_as(op);
          program.set_scope(copied.scope);
          const std::vector<ValueId> outputs = program.emit(copied.definition, copied.inputs);
          for (std::size_t i = 0; i < outputs.size(); ++i) again[copied.outputs[i]] = outputs[i];
        }
        if (again.contains(input)) input = again[input];
      }
    }
    program.restore(std::move(op));
  }
}

void lower(Program& program, const std::function<bool(Program&, const Op&)>& expand) {
  for (Op& op : program.take_ops()) {
    program.continue_as(op);
    if (!expand(program, op)) program.restore(std::move(op));
  }
}

}  // namespace annulus
