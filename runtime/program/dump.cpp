#include "runtime/program/dump.h"

#include <fmt/format.h>

namespace annulus {

std::string dump(const Program& program) {
  std::string text;
  for (const auto& [name, id] : program.leaves())
    text += fmt::format("leaf {}: {}\n", name, describe(program.mesh(), program.type(id)));
  int segment = -1;
  std::string where;
  for (const Op& op : program.ops()) {
    if (op.segment != segment) {
      segment = op.segment;
      const Segment& now = program.segments()[static_cast<std::size_t>(segment)];
      text += fmt::format("\nsegment {} x {}\n", now.name, now.repeat);
    }
    const std::string at = fmt::format("{} [{}]", op.scope.empty() ? "step" : op.scope, name_of(op.phase));
    if (at != where) text += fmt::format("  # {}\n", where = at);
    std::string outputs, inputs;
    for (ValueId id : op.outputs)
      outputs += fmt::format("{}{}: {}", outputs.empty() ? "" : ", ", program.value(id).name,
                             describe(program.mesh(), program.type(id)));
    for (ValueId id : op.inputs) inputs += fmt::format("{}{}", inputs.empty() ? "" : ", ", program.value(id).name);
    const auto call = op.definition->collective();
    text += fmt::format("  {} = {}{}({}){}\n", outputs, op.definition->name(),
                        call ? fmt::format("<{}>", program.mesh().label(call->axes)) : "", inputs,
                        op.definition->attributes().empty() ? "" : " {" + op.definition->attributes() + "}");
  }
  return text;
}

}  // namespace annulus
