#pragma once

#include <functional>
#include <memory>
#include <string>

#include "runtime/core/communicator.h"

namespace annulus {

/// Ranks that are threads of one process, for tests and for `annulus verify` without MPI. Transfers copy straight from
/// buffer to buffer; sums are in rank order. Ranks that call different things at the same place in their order get a
/// CollectiveError that names both calls. A rank that has left while others wait for it is an error, never a hang.
class ThreadWorld {
 public:
  explicit ThreadWorld(int size);

  /// The world as `rank` sees it; to be asked for once a rank. May outlive the ThreadWorld.
  std::unique_ptr<Communicator> communicator(int rank) const;

  /// Makes every unfinished and every later transfer of every rank throw CollectiveError.
  void fail(const std::string& why) const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

/// Runs `body` on `size` ranks, each a thread, and joins them. Where ranks throw, the others' transfers throw as well,
/// and the first cause is thrown from here.
void run_ranks(int size, const std::function<void(Communicator& world)>& body);

}  // namespace annulus
