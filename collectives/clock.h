#pragma once

#include "runtime/core/communicator.h"

namespace annulus {

/// This process's steady clock.
double steady_seconds();

/// How to read this rank's steady clock as rank 0's: `steady_seconds() + seconds`.
struct ClockOffset {
  double seconds = 0;
  double error_seconds = 0;  ///< at most this far off: half of the fastest round trip
};

/// The offset of this rank's steady clock to rank 0's, by `exchanges` round trips of which the fastest counts
/// (Cristian, "Probabilistic clock synchronization", 1989). Collective over `world`; not counted in its counters.
/// Clocks of two hosts drift apart by some microseconds a second: align again for long runs.
ClockOffset align_clock(Communicator& world, int exchanges = 30);

}  // namespace annulus
