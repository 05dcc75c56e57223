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

/// A sum of ledger rows, per step: of seconds, the median over steps of their sum.
struct LedgerGroup {
  std::string kind;
  std::string axes;       ///< empty for compute
  std::string transport;  ///< how its calls travelled, as in `direct`, `direct+slots`; empty for compute
  double calls = 0, flops = 0, payload_bytes = 0, wire_bytes = 0;
  double predicted_seconds = 0, measured_seconds = 0;
  double alone_seconds = 0;  ///< measured in steps without overlap; 0 where there was none
  double skew_seconds = 0, hidden_seconds = 0, exposed_seconds = 0;  ///< of transfers
};

/// One row per op: counts, what the model predicted, what was measured. The join is on op ids: plan and execution are
/// the same list. A collective's time is split into skew (waiting for the last rank) and transfer, which predictions
/// mean; a transfer into what was exposed, while the compute lane stood still for it, and what was hidden. What the
/// hidden part cost the kernels beside it is the difference of their seconds to those of probe steps.
class Ledger {
 public:
  Ledger(const Program& program, const Schedule& schedule, StepPrediction prediction);

  /// Takes a step in; with `overlap` off it is a probe of what compute takes undisturbed.
  StepTotals add(const StepTrace& trace, const std::vector<double>& last_arrivals, Overlap overlap);

  const StepPrediction& prediction() const { return prediction_; }
  /// Median over steps of a call's measured seconds; 0 where it never ran.
  double measured_seconds(int op) const;
  double alone_seconds(int op) const;
  /// Sums per step by kind and axes, the dearest first; communication before compute. Collective: of transfers, the
  /// mean over ranks. Which rank comes first to them, and waits longer for a time slice to see their end, may be the
  /// same for a whole run.
  std::vector<LedgerGroup> groups(Communicator& world) const;
  /// The whole ledger: `{"version": 1, "ops": [...], "groups": [...], ...}`.
  std::string json(const std::vector<LedgerGroup>& groups) const;

 private:
  static constexpr std::size_t kSamples = 128;  // of an op, the newest
  /// Samples of one number.
  class Samples {
   public:
    void add(double value);
    double median() const;

   private:
    std::vector<float> values_;
    std::size_t next_ = 0;
  };
  struct Times {
    Samples seconds, alone;         // alone: without overlap
    Samples skew, hidden, exposed;  // of a collective
  };
  struct Row {
    OpCost cost;
    Times times;
    std::optional<Transport> transport;  // the last call's
    std::size_t group = 0;
  };

  const Program& program_;
  const Schedule& schedule_;
  StepPrediction prediction_;
  std::vector<Row> rows_;
  std::vector<Times> group_times_;  // of a step's sums, as rows name them
  Samples probes_;                  // compute seconds of steps without overlap
};

}  // namespace annulus
