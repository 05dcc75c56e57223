#include "launch/step_report.h"

#include <fmt/format.h>

#include <algorithm>

#include "model/analytic/flops.h"
#include "model/analytic/time.h"

namespace annulus {
namespace {

constexpr double kMilli = 1e3;

constexpr double StepTotals::*kTotals[] = {&StepTotals::step, &StepTotals::compute, &StepTotals::communication,
                                           &StepTotals::skew, &StepTotals::waited,  &StepTotals::exposed};

double ratio(double over, double under) { return under > 0 ? over / under : 0; }

/// As in `1:02:03` or `2:03`.
std::string clock_text(double seconds) {
  const auto whole = static_cast<std::int64_t>(seconds + 0.5);
  if (whole >= 3600) return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

}  // namespace

StepExpectation expectation_of(const Symbols& symbols, const StepPrediction& prediction, const HardwareProfile& profile,
                               DType dtype, std::int64_t arena_bytes) {
  StepExpectation expected;
  expected.tokens = static_cast<double>(symbols.tokens());
  expected.ranks = static_cast<int>(symbols.ranks());
  expected.flops_full = model_flops(symbols, AttentionCount::full);
  expected.flops_causal = model_flops(symbols, AttentionCount::causal);
  expected.flops_6n = model_flops_6n(symbols);
  expected.peak_flops_per_second = profile.peak_flops_per_second;
  expected.predicted_seconds = prediction.step_seconds;
  expected.program_ratio = ratio(prediction.communication_seconds, prediction.compute_seconds);
  expected.closed_form_ratio = step_time(symbols, profile, dtype).communication_to_compute();
  expected.arena_bytes = arena_bytes;
  return expected;
}

OverRanks over_ranks(const std::vector<StepTotals>& ranks) {
  OverRanks over;
  for (const auto total : kTotals) {
    for (const StepTotals& one : ranks) {
      over.mean.*total += one.*total / static_cast<double>(ranks.size());
      over.largest.*total = std::max(over.largest.*total, one.*total);
    }
  }
  return over;
}

std::vector<Metric> metrics_of(const StepReport& report, const StepExpectation& expected) {
  const StepTotals &mean = report.totals.mean, &largest = report.totals.largest;
  const auto mfu = [&](double flops) {
    return utilisation(flops, report.seconds, expected.ranks, expected.peak_flops_per_second);
  };
  std::vector<Metric> metrics = {{"step", report.step},
                                 {"loss", report.summary.loss},
                                 {"gradient_norm", report.summary.gradient_norm},
                                 {"learning_rate", report.learning_rate},
                                 {"tokens_per_second", expected.tokens / report.seconds},
                                 {"step_seconds", report.seconds},
                                 {"predicted_step_seconds", expected.predicted_seconds}};
  const std::vector<Metric> measured = {{"compute_seconds", mean.compute},
                                        {"compute_seconds_largest", largest.compute},
                                        {"communication_seconds", mean.communication},
                                        {"communication_seconds_largest", largest.communication},
                                        {"skew_seconds", mean.skew},
                                        {"skew_seconds_largest", largest.skew},
                                        {"exposed_communication_seconds", mean.exposed},
                                        {"exposed_communication_seconds_largest", largest.exposed},
                                        {"communication_to_compute", ratio(mean.communication, mean.compute)}};
  const std::vector<Metric> rest = {{"communication_to_compute_program", expected.program_ratio},
                                    {"communication_to_compute_closed_form", expected.closed_form_ratio},
                                    {"mfu_full", mfu(expected.flops_full)},
                                    {"mfu_causal", mfu(expected.flops_causal)},
                                    {"mfu_6n", mfu(expected.flops_6n)},
                                    {"arena_bytes", expected.arena_bytes},
                                    {"process_peak_bytes", report.process_peak_bytes}};
  // A step that was replayed as a graph tells nothing of its ops.
  if (mean.compute > 0) metrics.insert(metrics.end(), measured.begin(), measured.end());
  metrics.insert(metrics.end(), rest.begin(), rest.end());
  if (report.loss_scale > 0) {
    metrics.push_back({"loss_scale", report.loss_scale});
    metrics.push_back({"skipped_steps", report.skipped_steps});
  }
  return metrics;
}

std::string progress_line(const StepReport& report, const StepExpectation& expected, std::int64_t steps,
                          double remaining_seconds) {
  const double mfu = utilisation(expected.flops_causal, report.seconds, expected.ranks, expected.peak_flops_per_second);
  const std::string scaling =
      report.loss_scale > 0 ? fmt::format("loss scale {:g}, {} skipped  ", report.loss_scale, report.skipped_steps)
                            : "";
  return fmt::format(
      "step {:>{}}/{}  loss {:.4f}  norm {:.3f}  lr {:.2e}  {:.0f} tokens/s  MFU {:.1f} %  {:.0f} ms = {:.2f} x "
      "predicted  "
      "{}ETA {}",
      report.step, std::to_string(steps).size(), steps, report.summary.loss, report.summary.gradient_norm,
      report.learning_rate, expected.tokens / report.seconds, 100 * mfu, kMilli * report.seconds,
      ratio(report.seconds, expected.predicted_seconds), scaling, clock_text(remaining_seconds));
}

std::string ledger_table(const std::vector<LedgerGroup>& groups) {
  std::string text = fmt::format("{:<22} {:<8} {:>6} {:>10} {:>12} {:>12} {:>6} {:>9} {:>8} {:>9} {:>10}  {}\n", "op",
                                 "axes", "calls", "payload MB", "predicted ms", "measured ms", "ratio", "alone ms",
                                 "skew ms", "hidden ms", "exposed ms", "transport");
  LedgerGroup sum;
  for (const LedgerGroup& group : groups) {
    const auto of_transfer = [&](double value, const char* format) {
      return group.axes.empty() ? "" : fmt::format(fmt::runtime(format), value);
    };
    text += fmt::format(
        "{:<22} {:<8} {:>6.0f} {:>10} {:>12.3f} {:>12.3f} {:>6} {:>9.3f} {:>8} {:>9} {:>10}  {}\n", group.kind,
        group.axes, group.calls, of_transfer(group.payload_bytes / 1e6, "{:.2f}"), kMilli * group.predicted_seconds,
        kMilli * group.measured_seconds,
        group.predicted_seconds > 0 ? fmt::format("{:.2f}", group.measured_seconds / group.predicted_seconds) : "-",
        kMilli * group.alone_seconds, of_transfer(kMilli * group.skew_seconds, "{:.3f}"),
        of_transfer(kMilli * group.hidden_seconds, "{:.3f}"), of_transfer(kMilli * group.exposed_seconds, "{:.3f}"),
        group.transport);
    if (!group.axes.empty()) continue;
    sum.predicted_seconds += group.predicted_seconds;
    sum.measured_seconds += group.measured_seconds;
    sum.alone_seconds += group.alone_seconds;
  }
  text += fmt::format("{:<22} {:<8} {:>6} {:>10} {:>12.3f} {:>12.3f} {:>6.2f} {:>9.3f}\n", "all compute", "", "", "",
                      kMilli * sum.predicted_seconds, kMilli * sum.measured_seconds,
                      ratio(sum.measured_seconds, sum.predicted_seconds), kMilli * sum.alone_seconds);
  return text;
}

}  // namespace annulus
