#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "model/analytic/symbols.h"
#include "model/step_runner.h"
#include "parallel/mesh.h"

namespace annulus {

/// What one step of one rank comes to, by name, as in `matrix products [FLOP]` or `all_reduce over tp: calls`.
using Counts = std::map<std::string, std::int64_t>;

/// From the formulas of the analytic model. Claims nothing about the number of gradient buckets.
Counts closed_form_counts(const Symbols& symbols, const MeshAxes& mesh, Tail tail = Tail::update);
/// From the recorded program.
Counts program_counts(const TrainStep& step);

/// What a rank really does: counters inside the kernels and the communicators, of what lies between `begin` and
/// `counts`.
class MeasuredCounts {
 public:
  MeasuredCounts(const Executor& executor, Groups& groups);
  void begin();
  Counts counts() const;

 private:
  Counts totals() const;

  const Executor& executor_;
  Groups& groups_;
  Counts before_;
};

/// Three sources side by side: a line for each count, and whether the program, which claims all of them, agrees with
/// the others that claim it.
struct CountsTable {
  std::string text;
  bool agree = true;
};
CountsTable compare_counts(const Counts& closed_form, const Counts& program, const Counts& measured);

}  // namespace annulus
