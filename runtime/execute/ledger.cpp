#include "runtime/execute/ledger.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

namespace annulus {
namespace {

std::string axes_of(const Program& program, const Op& op) {
  const auto call = op.definition->collective();
  return call ? program.mesh().label(call->axes) : "";
}

}  // namespace

std::vector<double> last_arrivals(const StepTrace& trace, const Schedule& schedule,
                                  const CommunicatorLookup& communicators, double clock_offset) {
  std::vector<double> last(trace.events.size());
  for (int lane = 1; lane < schedule.lane_count(); ++lane) {
    std::vector<std::size_t> events;
    std::vector<double> begun;
    for (std::size_t i = 0; i < trace.events.size(); ++i) {
      if (schedule.lanes[static_cast<std::size_t>(trace.events[i].op)] != lane) continue;
      events.push_back(i);
      begun.push_back(trace.events[i].begin + clock_offset);
    }
    Communicator& group = communicators(schedule.lane_axes[static_cast<std::size_t>(lane - 1)]);
    wait(group.all_reduce(begun.data(), begun.data(), static_cast<std::int64_t>(begun.size()), DType::f64,
                          Reduction::max));
    for (std::size_t i = 0; i < events.size(); ++i) last[events[i]] = begun[i] - clock_offset;
  }
  return last;
}

void Ledger::Samples::add(double value) {
  if (values_.size() < kSamples)
    values_.push_back(static_cast<float>(value));
  else
    values_[next_ % kSamples] = static_cast<float>(value);
  ++next_;
}

double Ledger::Samples::median() const {
  if (values_.empty()) return 0;
  std::vector<float> values = values_;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

Ledger::Ledger(const Program& program, const Schedule& schedule, StepPrediction prediction)
    : program_(program),
      schedule_(schedule),
      prediction_(std::move(prediction)),
      rows_(static_cast<std::size_t>(program.op_count())) {
  for (int i = 0; i < program.op_count(); ++i)
    rows_[static_cast<std::size_t>(i)].cost = cost_of(program, program.op(i));
}

StepTotals Ledger::add(const StepTrace& trace, const std::vector<double>& last_arrivals, Overlap overlap) {
  StepTotals totals;
  totals.step = trace.end - trace.begin;
  for (std::size_t i = 0; i < trace.events.size(); ++i) {
    const OpEvent& event = trace.events[i];
    Row& row = rows_[static_cast<std::size_t>(event.op)];
    if (schedule_.lanes[static_cast<std::size_t>(event.op)] == 0) {
      totals.compute += event.end - event.begin;
      (overlap == Overlap::on ? row.seconds : row.alone).add(event.end - event.begin);
      continue;
    }
    const double skew = std::max(0.0, last_arrivals[i] - event.begin);
    const double transfer = std::max(0.0, event.end - event.begin - skew);
    totals.communication += transfer;
    totals.skew += skew;
    totals.waited += event.waited;
    row.transport = event.transport;
    (overlap == Overlap::on ? row.seconds : row.alone).add(transfer);
    if (overlap == Overlap::off) continue;
    row.skew.add(skew);
    row.hidden.add(std::max(0.0, transfer - event.waited));
    row.exposed.add(event.waited);
  }
  if (overlap == Overlap::off) probes_.add(totals.compute);
  const double alone = probes_.median();
  const double slowdown = alone == 0 || overlap == Overlap::off ? 0.0 : std::max(0.0, totals.compute - alone);
  totals.exposed = totals.waited + slowdown;
  return totals;
}

double Ledger::measured_seconds(int op) const { return rows_[static_cast<std::size_t>(op)].seconds.median(); }
double Ledger::alone_seconds(int op) const { return rows_[static_cast<std::size_t>(op)].alone.median(); }

std::vector<LedgerGroup> Ledger::groups() const {
  std::map<std::pair<std::string, std::string>, LedgerGroup> sums;
  std::map<std::pair<std::string, std::string>, std::set<std::string_view>> transports;
  for (int i = 0; i < program_.op_count(); ++i) {
    const Op& op = program_.op(i);
    const Row& row = rows_[static_cast<std::size_t>(i)];
    const double calls = program_.segments()[static_cast<std::size_t>(op.segment)].repeat;
    LedgerGroup& group = sums[{axes_of(program_, op), std::string(op.definition->name())}];
    group.kind = op.definition->name();
    group.axes = axes_of(program_, op);
    group.calls += calls;
    group.flops += calls * row.cost.work.flops;
    group.payload_bytes += calls * static_cast<double>(row.cost.payload_bytes);
    group.wire_bytes += calls * row.cost.wire_bytes;
    group.predicted_seconds += calls * prediction_.ops[static_cast<std::size_t>(i)].seconds;
    group.measured_seconds += calls * row.seconds.median();
    group.alone_seconds += calls * row.alone.median();
    group.skew_seconds += calls * row.skew.median();
    group.hidden_seconds += calls * row.hidden.median();
    group.exposed_seconds += calls * row.exposed.median();
    if (row.transport) transports[{group.axes, group.kind}].insert(name_of(*row.transport));
  }
  std::vector<LedgerGroup> groups;
  for (auto& [key, group] : sums) {
    for (std::string_view name : transports[key])
      group.transport += (group.transport.empty() ? "" : "+") + std::string(name);
    groups.push_back(std::move(group));
  }
  std::stable_sort(groups.begin(), groups.end(), [](const LedgerGroup& a, const LedgerGroup& b) {
    if (a.axes.empty() != b.axes.empty()) return b.axes.empty();
    return a.measured_seconds > b.measured_seconds;
  });
  return groups;
}

std::string Ledger::json() const {
  nlohmann::ordered_json ops = nlohmann::ordered_json::array(), sums = nlohmann::ordered_json::array();
  for (int i = 0; i < program_.op_count(); ++i) {
    const Op& op = program_.op(i);
    const Row& row = rows_[static_cast<std::size_t>(i)];
    const Segment& segment = program_.segments()[static_cast<std::size_t>(op.segment)];
    ops.push_back({{"op", i},
                   {"scope", op.scope},
                   {"phase", name_of(op.phase)},
                   {"kind", op.definition->name()},
                   {"axes", axes_of(program_, op)},
                   {"transport", row.transport ? name_of(*row.transport) : ""},
                   {"segment", segment.name},
                   {"calls_per_step", segment.repeat},
                   {"flops", row.cost.work.flops},
                   {"bytes_read", row.cost.work.bytes_read},
                   {"bytes_written", row.cost.work.bytes_written},
                   {"payload_bytes", row.cost.payload_bytes},
                   {"wire_bytes", row.cost.wire_bytes},
                   {"predicted_seconds", prediction_.ops[static_cast<std::size_t>(i)].seconds},
                   {"measured_seconds", row.seconds.median()},
                   {"alone_seconds", row.alone.median()},
                   {"skew_seconds", row.skew.median()},
                   {"hidden_seconds", row.hidden.median()},
                   {"exposed_seconds", row.exposed.median()}});
  }
  for (const LedgerGroup& group : groups())
    sums.push_back({{"kind", group.kind},
                    {"axes", group.axes},
                    {"transport", group.transport},
                    {"calls", group.calls},
                    {"flops", group.flops},
                    {"payload_bytes", group.payload_bytes},
                    {"wire_bytes", group.wire_bytes},
                    {"predicted_seconds", group.predicted_seconds},
                    {"measured_seconds", group.measured_seconds},
                    {"alone_seconds", group.alone_seconds},
                    {"skew_seconds", group.skew_seconds},
                    {"hidden_seconds", group.hidden_seconds},
                    {"exposed_seconds", group.exposed_seconds}});
  const nlohmann::ordered_json whole{{"version", 1},
                                     {"predicted_step_seconds", prediction_.step_seconds},
                                     {"predicted_compute_seconds", prediction_.compute_seconds},
                                     {"predicted_communication_seconds", prediction_.communication_seconds},
                                     {"predicted_exposed_seconds", prediction_.exposed_seconds},
                                     {"undisturbed_compute_seconds", probes_.median()},
                                     {"groups", sums},
                                     {"ops", ops}};
  return whole.dump(1) + "\n";
}

}  // namespace annulus
