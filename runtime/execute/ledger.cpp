#include "runtime/execute/ledger.h"

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <tuple>
#include <utility>

namespace annulus {
namespace {

std::string axes_of(const Program& program, const Op& op) {
  const auto call = op.definition->collective();
  return call ? program.mesh().label(call->axes) : "";
}

/// Axes and kind.
using GroupKey = std::pair<std::string, std::string>;
GroupKey group_of(const Program& program, const Op& op) {
  return {axes_of(program, op), std::string(op.definition->name())};
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
  std::map<GroupKey, std::size_t> known;
  for (int i = 0; i < program.op_count(); ++i) {
    Row& row = rows_[static_cast<std::size_t>(i)];
    row.cost = cost_of(program, program.op(i));
    row.group = known.try_emplace(group_of(program, program.op(i)), known.size()).first->second;
  }
  group_times_.resize(known.size());
}

StepTotals Ledger::add(const StepTrace& trace, const std::vector<double>& last_arrivals, Overlap overlap) {
  struct Sum {
    double seconds = 0, skew = 0, exposed = 0, hidden = 0;
  };
  const auto keep = [&](Times& times, const Sum& one, bool is_transfer) {
    (overlap == Overlap::on ? times.seconds : times.alone).add(one.seconds);
    if (!is_transfer || overlap == Overlap::off) return;
    times.skew.add(one.skew);
    times.hidden.add(one.hidden);
    times.exposed.add(one.exposed);
  };
  StepTotals totals;
  totals.step = trace.end - trace.begin;
  std::vector<Sum> sums(group_times_.size());
  std::vector<bool> transfers(group_times_.size());
  for (std::size_t i = 0; i < trace.events.size(); ++i) {
    const OpEvent& event = trace.events[i];
    Row& row = rows_[static_cast<std::size_t>(event.op)];
    const bool is_transfer = schedule_.lanes[static_cast<std::size_t>(event.op)] != 0;
    Sum one{event.end - event.begin};
    if (is_transfer) {
      one.skew = std::max(0.0, last_arrivals[i] - event.begin);
      one.seconds = std::max(0.0, one.seconds - one.skew);
      one.exposed = event.waited;
      one.hidden = std::max(0.0, one.seconds - one.exposed);
      totals.communication += one.seconds;
      totals.skew += one.skew;
      totals.waited += one.exposed;
      row.transport = event.transport;
    } else {
      totals.compute += one.seconds;
    }
    keep(row.times, one, is_transfer);
    Sum& sum = sums[row.group];
    sum = {sum.seconds + one.seconds, sum.skew + one.skew, sum.exposed + one.exposed, sum.hidden + one.hidden};
    transfers[row.group] = is_transfer;
  }
  for (std::size_t group = 0; group < sums.size() && !trace.events.empty(); ++group)
    keep(group_times_[group], sums[group], transfers[group]);
  if (overlap == Overlap::off) probes_.add(totals.compute);
  const double alone = probes_.median();
  const double slowdown = alone == 0 || overlap == Overlap::off ? 0.0 : std::max(0.0, totals.compute - alone);
  totals.exposed = totals.waited + slowdown;
  return totals;
}

double Ledger::measured_seconds(int op) const { return rows_[static_cast<std::size_t>(op)].times.seconds.median(); }
double Ledger::alone_seconds(int op) const { return rows_[static_cast<std::size_t>(op)].times.alone.median(); }

std::vector<LedgerGroup> Ledger::groups(Communicator& world) const {
  std::map<GroupKey, LedgerGroup> sums;
  std::map<GroupKey, std::set<std::string_view>> transports;
  for (int i = 0; i < program_.op_count(); ++i) {
    const Op& op = program_.op(i);
    const Row& row = rows_[static_cast<std::size_t>(i)];
    const double calls = program_.segments()[static_cast<std::size_t>(op.segment)].repeat;
    const Times& times = group_times_[row.group];
    const GroupKey key = group_of(program_, op);
    LedgerGroup& group = sums[key];
    std::tie(group.axes, group.kind) = key;
    group.calls += calls;
    group.flops += calls * row.cost.work.flops;
    group.payload_bytes += calls * static_cast<double>(row.cost.payload_bytes);
    group.wire_bytes += calls * row.cost.wire_bytes;
    group.predicted_seconds += calls * prediction_.ops[static_cast<std::size_t>(i)].seconds;
    group.measured_seconds = times.seconds.median();
    group.alone_seconds = times.alone.median();
    group.skew_seconds = times.skew.median();
    group.hidden_seconds = times.hidden.median();
    group.exposed_seconds = times.exposed.median();
    if (row.transport) transports[key].insert(name_of(*row.transport));
  }
  std::vector<LedgerGroup> groups;
  for (auto& [key, group] : sums) {
    if (!group.axes.empty()) {
      const std::array seconds = {&group.measured_seconds, &group.alone_seconds, &group.skew_seconds,
                                  &group.hidden_seconds, &group.exposed_seconds};
      for (double* value : seconds) {
        wait(world.all_reduce(value, value, 1, DType::f64, Reduction::sum));
        *value /= world.size();
      }
    }
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

std::string Ledger::json(const std::vector<LedgerGroup>& groups) const {
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
                   {"measured_seconds", row.times.seconds.median()},
                   {"alone_seconds", row.times.alone.median()},
                   {"skew_seconds", row.times.skew.median()},
                   {"hidden_seconds", row.times.hidden.median()},
                   {"exposed_seconds", row.times.exposed.median()}});
  }
  for (const LedgerGroup& group : groups)
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
