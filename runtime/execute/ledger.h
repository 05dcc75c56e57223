#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runtime/execute/executor.h"
#include "runtime/simulate/prediction.h"

namespace annulus {

/// Seconds of one step on this rank.
struct StepTotals {
  double step = 0;
  double compute = 0;        ///< in kernels
  double communication = 0;  ///< transfers, from the last rank's arrival to the end; hidden or not
  double skew = 0;           ///< from this rank's arrival to the last rank's, over all collectives
  double waited = 0;         ///< the compute lane stood still for collectives
  double exposed = 0;        ///< waited, plus what communication beside it slowed compute by
};

/// For each event of a trace that is a collective: when the last rank of its group began it, in this rank's clock; 0
/// for other events. Collective over every group that the program uses. `clock_offset` is rank 0's clock minus this
/// rank's.
std::vector<double> last_arrivals(const StepTrace& trace, const Schedule& schedule,
                                  const CommunicatorLookup& communicators, double clock_offset);

/// A sum of ledger rows, per step.
struct LedgerGroup {
  std::string kind;
  std::string axes;       ///< empty for compute
  std::string transport;  ///< how its calls travelled, as in `direct`, `direct+slots`; empty for compute
  double calls = 0, flops = 0, payload_bytes = 0, wire_bytes = 0;
  double predicted_seconds = 0, measured_seconds = 0, skew_seconds = 0, exposed_seconds = 0;
};

/// One row per op: counts, what the model predicted, what was measured. The join is on op ids: plan and execution are
/// the same list. A collective's time is split into skew (waiting for the last rank) and transfer, which predictions
/// mean.
class Ledger {
 public:
  Ledger(const Program& program, const Schedule& schedule, StepPrediction prediction);

  /// Takes a step in; with `overlap` off it is a probe of what compute takes undisturbed.
  StepTotals add(const StepTrace& trace, const std::vector<double>& last_arrivals, Overlap overlap);

  const StepPrediction& prediction() const { return prediction_; }
  /// Median over steps of a call's measured seconds; 0 where it never ran.
  double measured_seconds(int op) const;
  /// Sums per step by kind and axes, the dearest first; communication before compute.
  std::vector<LedgerGroup> groups() const;
  /// The whole ledger: `{"version": 1, "ops": [...], "groups": [...], ...}`.
  std::string json() const;

 private:
  static constexpr std::size_t kSamples = 128;  // of an op, the newest
  struct Row {
    OpCost cost;
    std::vector<float> seconds, skew, exposed;
    std::optional<Transport> transport;  // of a collective, the last call's
    std::size_t next = 0;
    void add(double measured, double skewed, double stood);
  };

  const Program& program_;
  const Schedule& schedule_;
  StepPrediction prediction_;
  std::vector<Row> rows_;
  std::vector<double> probes_;  // compute seconds of steps without overlap
};

}  // namespace annulus
