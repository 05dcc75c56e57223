#pragma once

#include <vector>

#include "runtime/program/program.h"

namespace annulus {

/// Moves every collective forward in the list, to just behind the last op that it depends on, so that what is recorded
/// behind it can run while it does. Collectives over the same axes keep their order, and the result depends on the list
/// alone, never on costs: it is the same on all ranks. Ring hops stay where the ring put them: one block ahead, no
/// more.
void hoist_collectives(Program& program);

/// Who runs an op, and what it waits for. Lane 0 computes, in list order; each set of axes that some collective uses
/// has a lane of its own, first in first out. The compute lane hands a collective over when it reaches it in the list.
struct Schedule {
  std::vector<AxisSet> lane_axes;       ///< of lane 1 + i
  std::vector<int> lanes;               ///< of each op
  std::vector<std::vector<int>> waits;  ///< collectives that must be complete before the op is run or handed over
  /// complete[op * lane_count + lane]: last op of that lane which is known to be complete when the op starts; -1 if
  /// none.
  std::vector<int> complete;

  int lane_count() const { return 1 + static_cast<int>(lane_axes.size()); }
  int complete_before(int op, int lane) const {
    return complete[static_cast<std::size_t>(op) * static_cast<std::size_t>(lane_count()) +
                    static_cast<std::size_t>(lane)];
  }
};

/// Derives lanes and waits from data dependencies and aliases. Every lane is drained at the end of a segment's run.
Schedule make_schedule(const Program& program);

/// Throws InternalError where an op reads a value whose storage an earlier op has overwritten.
void check_aliases(const Program& program);

/// Storage of each value: values that alias one another share a number.
std::vector<int> storage_of_values(const Program& program);

}  // namespace annulus
