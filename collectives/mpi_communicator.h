#pragma once

#include <cstdint>
#include <memory>

#include "runtime/core/communicator.h"

namespace annulus {

/// Sizes at which the MPI backend changes its ways; tests lower them to take every way with small tensors.
struct MpiOptions {
  std::int64_t largest_count = std::int64_t{1} << 30;  ///< elements of a plain MPI call; beyond, a derived type
  std::int64_t small_bytes = 4096;                     ///< an all-reduce up to this size is one exchange of everything
  std::int64_t scratch_bytes = std::int64_t{1} << 20;  ///< of each of the two segments of a reduction under way
  std::int64_t window_slot_bytes = 128 * 1024;         ///< of shared memory, two a rank and group; 0: messages alone
  std::uint64_t host_salt = 0;                         ///< ranks with different ones pass for ranks of different hosts
};

/// All ranks of the job, over MPI non-blocking collectives and messages. Reductions are exchanged by messages and
/// summed in rank order, since those of MPI promise neither the same bits on all ranks nor from run to run. Collective
/// over all ranks of a running MPI (see MpiRuntime); no transfer may be unfinished when the communicator goes.
std::unique_ptr<Communicator> mpi_world(const MpiOptions& options = {});

}  // namespace annulus
