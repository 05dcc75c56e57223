#pragma once

#include <memory>

#include "collectives/nccl_library.h"

namespace annulus {

class NcclSession;

/// All ranks of a job over NCCL: buffers lie in the memory of their GPUs. Groups are split, and found, over
/// `bootstrap`, a communicator of the same ranks in host memory; each has a stream of its own. Every call is issued in
/// the order in which transfers were started, the same on all ranks, and none before NCCL has accepted the one before
/// it. A transfer reads what had been written when it was started: whoever computes waits for the device first. Sums
/// are the same bits on all ranks; from run to run only where NCCL's algorithm and protocol are fixed.
struct NcclWorld {
  std::shared_ptr<NcclSession> session;
  std::unique_ptr<Communicator> communicator;

  /// Ends what every group is in, all at once: transfers throw from then on. From any thread; NCCL's call may take
  /// long.
  void abort() const;
};

/// The ranks of thousands of GPUs find each other in a minute; before a group is there, no watchdog watches it.
inline constexpr double kNcclStartSeconds = 300;

/// Collective over `bootstrap`. Throws CollectiveError, also where a group's ranks have not found each other in
/// `start_seconds`.
NcclWorld nccl_world(std::unique_ptr<Communicator> bootstrap, std::shared_ptr<NcclLibrary> library,
                     double start_seconds = kNcclStartSeconds);

}  // namespace annulus
