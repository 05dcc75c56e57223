#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/analytic/symbols.h"
#include "model/step_runner.h"
#include "runtime/execute/ledger.h"
#include "runtime/simulate/hardware_profile.h"
#include "runtime/training/metrics.h"

namespace annulus {

/// What does not change from step to step: the work of one, and what was predicted of it.
struct StepExpectation {
  double tokens = 0;  ///< of a step, all ranks
  int ranks = 1;
  double flops_full = 0, flops_causal = 0, flops_6n = 0;  ///< of a step, all ranks, in the three conventions
  double peak_flops_per_second = 0;                       ///< of a rank
  double predicted_seconds = 0;
  double program_ratio = 0;      ///< communication over compute, from the program's prediction
  double closed_form_ratio = 0;  ///< the same from the closed form
  std::int64_t arena_bytes = 0;
};
StepExpectation expectation_of(const Symbols& symbols, const StepPrediction& prediction, const HardwareProfile& profile,
                               DType dtype, std::int64_t arena_bytes);

/// Mean and largest over the ranks.
struct OverRanks {
  StepTotals mean, largest;
};
OverRanks over_ranks(const std::vector<StepTotals>& ranks);

/// One step, as it is logged.
struct StepReport {
  std::int64_t step = 0;  ///< from 1
  StepSummary summary;
  double learning_rate = 0;
  double loss_scale = 0;           ///< 0: there is no loss scaling
  std::int64_t skipped_steps = 0;  ///< so far, this one included
  double seconds = 0;              ///< of the whole step, the slowest rank's
  OverRanks totals;
  std::int64_t process_peak_bytes = 0;  ///< largest over ranks
};

/// The object in `metrics.jsonl` (docs/run-folder.md).
std::vector<Metric> metrics_of(const StepReport& report, const StepExpectation& expectation);

/// `step 120/1000  loss 3.1234  ...`; `remaining_seconds` is the time that the run will still take.
std::string progress_line(const StepReport& report, const StepExpectation& expectation, std::int64_t steps,
                          double remaining_seconds);

/// The closing table: by collective and axes, then by kind of compute: predicted, measured, their ratio, exposed.
std::string ledger_table(const std::vector<LedgerGroup>& groups);

}  // namespace annulus
