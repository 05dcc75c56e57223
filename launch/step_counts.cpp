#include "launch/step_counts.h"

#include <fmt/format.h>

#include <cmath>
#include <set>

#include "model/analytic/communication.h"
#include "model/analytic/flops.h"
#include "model/analytic/memory.h"
#include "model/analytic/parameters.h"
#include "runtime/ops/op_kind.h"
#include "runtime/simulate/prediction.h"

namespace annulus {
namespace {

constexpr const char* kProducts = "matrix products [FLOP]";
constexpr const char* kPairs = "attended pairs";
constexpr const char* kParameters = "parameters";
constexpr const char* kActivations = "stored activations [bytes]";

std::string calls_over(const std::string& axes) { return "calls over " + axes; }
std::string payload_over(const std::string& axes) { return "payload over " + axes + " [bytes]"; }

/// Bytes that ops before the loss of the last micro-batch make and ops behind it read, without the logits and the loss.
std::int64_t stored_activation_bytes(const Program& program) {
  int loss = -1;
  for (int i = 0; i < program.op_count(); ++i) {
    if (program.op(i).definition->kind() == OpKind::nll) loss = i;
  }
  const std::vector<int> storage = storage_of_values(program);
  const auto of = [&](ValueId id) { return storage[static_cast<std::size_t>(id)]; };
  std::map<int, std::int64_t> made;
  std::set<int> read;
  for (int i = 0; i < program.op_count(); ++i) {
    const Op& op = program.op(i);
    if (op.segment != program.op(loss).segment || i == loss) continue;
    if (i > loss) {
      for (const ValueId id : op.inputs) read.insert(of(id));
      continue;
    }
    for (const ValueId id : op.outputs) {
      if (is_float(program.type(id).dtype)) made[of(id)] = program.type(id).bytes();
    }
  }
  read.erase(of(program.op(loss).inputs[0]));
  read.erase(of(program.op(loss).outputs[0]));
  std::int64_t sum = 0;
  for (const auto& [id, bytes] : made) sum += read.contains(id) ? bytes : 0;
  return sum;
}

std::string cell(const Counts& counts, const std::string& name) {
  const auto found = counts.find(name);
  return found == counts.end() ? "-" : fmt::format("{}", found->second);
}

}  // namespace

Counts closed_form_counts(const Symbols& symbols, const MeshAxes& mesh) {
  Counts counts;
  counts[kParameters] = parameters_on_rank(symbols);
  counts[kProducts] = product_flops(symbols);
  const AttentionPairs pairs = attention_pairs(symbols, mesh[mesh_axis::cp].coordinate);
  counts[kPairs] = pairs.forward + pairs.backward;
  counts[kActivations] = total_bytes(activation_items(symbols));
  std::set<std::string> unclaimed;
  for (const CommunicationItem& item : communication_items(symbols)) {
    counts[payload_over(item.axes)] += item.payload_bytes;
    counts[calls_over(item.axes)] += item.calls.value_or(0);
    if (!item.calls) unclaimed.insert(calls_over(item.axes));
  }
  for (const std::string& name : unclaimed) counts.erase(name);
  return counts;
}

Counts program_counts(const TrainStep& step) {
  Counts counts;
  for (const Parameter& parameter : step.parameters)
    counts[kParameters] += step.program.type(parameter.value).shape.elements();
  double products = 0;
  for (const Op& op : step.program.ops()) {
    const int repeat = step.program.segments()[static_cast<std::size_t>(op.segment)].repeat;
    const OpCost cost = cost_of(step.program, op);
    if (op.definition->kind() == OpKind::matmul) products += repeat * cost.work.flops;
    counts[kPairs] += repeat * cost.work.attended_pairs;
    if (const auto call = op.definition->collective()) {
      const std::string axes = step.program.mesh().label(call->axes);
      counts[calls_over(axes)] += repeat;
      counts[payload_over(axes)] += repeat * cost.payload_bytes;
    }
  }
  counts[kProducts] = std::llround(products);
  counts[kActivations] = stored_activation_bytes(step.program);
  return counts;
}

MeasuredCounts::MeasuredCounts(const Executor& executor, Groups& groups) : executor_(executor), groups_(groups) {
  begin();
}

MeasuredCounts::Totals MeasuredCounts::totals() const {
  Totals totals{executor_.counters().product_flops, executor_.counters().attended_pairs, {}};
  for (const AxisSet axes : executor_.schedule().lane_axes) {
    totals.by_axes[executor_.program().mesh().label(axes)] = groups_.over(axes).counters();
  }
  return totals;
}

void MeasuredCounts::begin() { before_ = totals(); }

Counts MeasuredCounts::counts() const {
  const Totals now = totals();
  Counts counts;
  counts[kProducts] = std::llround(now.product_flops - before_.product_flops);
  counts[kPairs] = now.attended_pairs - before_.attended_pairs;
  for (const auto& [axes, counters] : now.by_axes) {
    counts[calls_over(axes)] = counters.calls - before_.by_axes.at(axes).calls;
    counts[payload_over(axes)] = counters.payload_bytes - before_.by_axes.at(axes).payload_bytes;
  }
  return counts;
}

CountsTable compare_counts(const Counts& closed_form, const Counts& program, const Counts& measured) {
  CountsTable table;
  table.text =
      fmt::format("{:<32} {:>20} {:>20} {:>20}\n", "count (one step, this rank)", "closed form", "program", "measured");
  std::set<std::string> names;
  for (const Counts* counts : {&closed_form, &program, &measured}) {
    for (const auto& [name, count] : *counts) names.insert(name);
  }
  for (const std::string& name : names) {
    std::set<std::int64_t> values;
    for (const Counts* counts : {&closed_form, &program, &measured}) {
      if (const auto found = counts->find(name); found != counts->end()) values.insert(found->second);
    }
    table.agree = table.agree && values.size() == 1;
    table.text += fmt::format("{:<32} {:>20} {:>20} {:>20}{}\n", name, cell(closed_form, name), cell(program, name),
                              cell(measured, name), values.size() == 1 ? "" : "  <- differ");
  }
  return table;
}

}  // namespace annulus
