#include "runtime/execute/ledger.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

namespace annulus {
namespace {

template <class Number>
double median(std::vector<Number> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

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

void Ledger::Row::add(double measured, double skewed, double stood) {
  const auto put = [&](std::vector<float>& samples, double value) {
    if (samples.size() < kSamples)
      samples.push_back(static_cast<float>(value));
    else
      samples[next % kSamples] = static_cast<float>(value);
  };
  put(seconds, measured);
  put(skew, skewed);
  put(exposed, stood);
  ++next;
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
      if (overlap == Overlap::on) row.add(event.end - event.begin, 0, 0);
      continue;
    }
    const double skew = std::max(0.0, last_arrivals[i] - event.begin);
    const double transfer = std::max(0.0, event.end - event.begin - skew);
    totals.communication += transfer;
    totals.skew += skew;
    totals.waited += event.waited;
    row.transport = event.transport;
    if (overlap == Overlap::on) row.add(transfer, skew, event.waited);
  }
  if (overlap == Overlap::off) probes_.push_back(totals.compute);
  const double slowdown =
      probes_.empty() || overlap == Overlap::off ? 0.0 : std::max(0.0, totals.compute - median(probes_));
  totals.exposed = totals.waited + slowdown;
  return totals;
}

double Ledger::measured_seconds(int op) const { return median(rows_[static_cast<std::size_t>(op)].seconds); }

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
    group.measured_seconds += calls * median(row.seconds);
    group.skew_seconds += calls * median(row.skew);
    group.exposed_seconds += calls * median(row.exposed);
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
                   {"measured_seconds", median(row.seconds)},
                   {"skew_seconds", median(row.skew)},
                   {"exposed_seconds", median(row.exposed)}});
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
                    {"skew_seconds", group.skew_seconds},
                    {"exposed_seconds", group.exposed_seconds}});
  const nlohmann::ordered_json whole{{"version", 1},
                                     {"predicted_step_seconds", prediction_.step_seconds},
                                     {"predicted_compute_seconds", prediction_.compute_seconds},
                                     {"predicted_communication_seconds", prediction_.communication_seconds},
                                     {"predicted_exposed_seconds", prediction_.exposed_seconds},
                                     {"undisturbed_compute_seconds", median(probes_)},
                                     {"groups", sums},
                                     {"ops", ops}};
  return whole.dump(1) + "\n";
}

}  // namespace annulus
