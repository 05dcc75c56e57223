#include "model/counts.h"

#include <fmt/format.h>

#include <cmath>
#include <set>

#include "model/analytic/communication.h"
#include "model/analytic/flops.h"
#include "model/analytic/gradients.h"
#include "model/analytic/memory.h"
#include "model/analytic/parameters.h"
#include "runtime/ops/op_kind.h"
#include "runtime/simulate/prediction.h"

namespace annulus {
namespace {

constexpr const char* kProducts = "matrix products [FLOP]";
constexpr const char* kForwardPairs = "attended pairs, forward";
constexpr const char* kBackwardPairs = "attended pairs, backward";
constexpr const char* kParameters = "parameters";
constexpr const char* kActivations = "stored activations [bytes]";
constexpr const char* kWeightBytes = "weights [bytes]";
constexpr const char* kMomentBytes = "optimizer moments [bytes]";
constexpr const char* kMasterBytes = "master weights [bytes]";
constexpr const char* kGradientBytes = "accumulated gradients [bytes]";

std::string calls_of(CollectiveKind kind, const std::string& axes) {
  return fmt::format("{} over {}: calls", name_of(kind), axes);
}
std::string payload_of(CollectiveKind kind, const std::string& axes) {
  return fmt::format("{} over {}: payload [bytes]", name_of(kind), axes);
}

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

Counts closed_form_counts(const Symbols& symbols, const MeshAxes& mesh, Tail tail) {
  Counts counts;
  counts[kParameters] = parameters_on_rank(symbols);
  counts[kProducts] = product_flops(symbols);
  const AttentionPairs pairs = attention_pairs(symbols, mesh[mesh_axis::cp].coordinate);
  counts[kForwardPairs] = pairs.forward;
  counts[kBackwardPairs] = pairs.backward;
  counts[kWeightBytes] = counts[kParameters] * symbols.p;
  if (tail == Tail::update) counts[kMomentBytes] = optimizer_elements_on_rank(symbols) * symbols.p_optimizer;
  if (tail == Tail::update && symbols.p_master > 0)
    counts[kMasterBytes] = optimizer_elements_on_rank(symbols) * symbols.p_master;
  if (symbols.m > 1) counts[kGradientBytes] = counts[kParameters] * symbols.p_gradient;
  counts[kActivations] = total_bytes(activation_items(symbols));
  std::set<std::string> unclaimed;
  for (const CommunicationItem& item : communication_items(symbols)) {
    if (item.role == CommunicationRole::weights && tail != Tail::update) continue;
    counts[payload_of(item.kind, item.axes)] += item.payload_bytes;
    counts[calls_of(item.kind, item.axes)] += item.calls.value_or(0);
    if (!item.calls) unclaimed.insert(calls_of(item.kind, item.axes));
  }
  for (const std::string& name : unclaimed) counts.erase(name);
  return counts;
}

Counts program_counts(const TrainStep& step) {
  const Program& program = step.program;
  Counts counts;
  for (const Parameter& parameter : step.parameters) {
    counts[kParameters] += program.type(parameter.value).shape.elements();
    counts[kWeightBytes] += program.type(parameter.value).bytes();
    const ValueId accumulator = program.find_leaf(accumulator_name(parameter.name));
    if (accumulator != kNoValue) counts[kGradientBytes] += program.type(accumulator).bytes();
  }
  for (const ValueId moment : step.moments) counts[kMomentBytes] += program.type(moment).bytes();
  for (const ValueId master : step.masters) counts[kMasterBytes] += program.type(master).bytes();
  double products = 0;
  for (const Op& op : program.ops()) {
    const int repeat = program.segments()[static_cast<std::size_t>(op.segment)].repeat;
    const OpCost cost = cost_of(program, op);
    if (op.definition->kind() == OpKind::matmul) products += repeat * cost.work.flops;
    counts[op.phase == Phase::forward ? kForwardPairs : kBackwardPairs] += repeat * cost.work.attended_pairs;
    if (const auto call = op.definition->collective()) {
      const std::string axes = program.mesh().label(call->axes);
      counts[calls_of(call->kind, axes)] += repeat;
      counts[payload_of(call->kind, axes)] += repeat * cost.payload_bytes;
    }
  }
  counts[kProducts] = std::llround(products);
  counts[kActivations] = stored_activation_bytes(program);
  return counts;
}

MeasuredCounts::MeasuredCounts(const Executor& executor, Groups& groups) : executor_(executor), groups_(groups) {
  begin();
}

Counts MeasuredCounts::totals() const {
  Counts totals;
  totals[kProducts] = std::llround(executor_.counters().product_flops);
  totals[kForwardPairs] = executor_.counters(Phase::forward).attended_pairs;
  totals[kBackwardPairs] = executor_.counters(Phase::backward).attended_pairs;
  for (const AxisSet axes : executor_.schedule().lane_axes) {
    const std::string label = executor_.program().mesh().label(axes);
    for (const CollectiveKind kind : kCollectiveKinds) {
      totals[calls_of(kind, label)] = groups_.over(axes).counters(kind).calls;
      totals[payload_of(kind, label)] = groups_.over(axes).counters(kind).payload_bytes;
    }
  }
  return totals;
}

void MeasuredCounts::begin() { before_ = totals(); }

Counts MeasuredCounts::counts() const {
  Counts counts = totals();
  for (auto& [name, count] : counts) count -= before_.at(name);
  // Of collectives that neither ran nor should have run there is nothing to compare.
  std::set<std::string> recorded;
  const Program& program = executor_.program();
  for (const Op& op : program.ops()) {
    const auto call = op.definition->collective();
    if (call)
      recorded.insert({calls_of(call->kind, program.mesh().label(call->axes)),
                       payload_of(call->kind, program.mesh().label(call->axes))});
  }
  std::erase_if(counts, [&](const auto& entry) { return entry.second == 0 && !recorded.contains(entry.first); });
  return counts;
}

CountsTable compare_counts(const Counts& closed_form, const Counts& program, const Counts& measured) {
  CountsTable table;
  table.text =
      fmt::format("{:<44} {:>20} {:>20} {:>20}\n", "count (one step, this rank)", "closed form", "program", "measured");
  std::set<std::string> names;
  for (const Counts* counts : {&closed_form, &program, &measured}) {
    for (const auto& [name, count] : *counts) names.insert(name);
  }
  for (const std::string& name : names) {
    std::set<std::int64_t> values;
    for (const Counts* counts : {&closed_form, &program, &measured}) {
      if (const auto found = counts->find(name); found != counts->end()) values.insert(found->second);
    }
    const bool agree = values.size() == 1 && program.contains(name);
    table.agree = table.agree && agree;
    table.text += fmt::format("{:<44} {:>20} {:>20} {:>20}{}\n", name, cell(closed_form, name), cell(program, name),
                              cell(measured, name), agree ? "" : "  <- differ");
  }
  return table;
}

}  // namespace annulus
