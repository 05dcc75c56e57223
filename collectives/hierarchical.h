#pragma once

#include <functional>
#include <memory>

#include "collectives/message_reduction.h"
#include "collectives/progress.h"
#include "collectives/request.h"

namespace annulus {

/// A group whose ranks lie on several hosts, one host after another, equally many on each: rank = host * ranks_per_host
/// + place.
struct HostGrid {
  int hosts = 1, ranks_per_host = 1;
  int host = 0, place = 0;  ///< of this rank
};

/// What hierarchical transfers are made of.
struct HierarchyParts {
  HostGrid grid;
  /// A collective among the ranks of this host, by place; and one among those of this place, by host.
  std::function<std::unique_ptr<Operation>(const Request&)> within, between;
  /// Messages between the ranks of this place, numbered by host.
  std::function<std::unique_ptr<MessageExchange>(const Request&)> messages;
  std::shared_ptr<ScratchPool> scratch;
};

/// Collectives of one group in stages: shared memory within hosts, messages between ranks of the same place on theirs,
/// so that every byte crosses the network as seldom as it can. One after another; all ranks start the same ones in the
/// same order. A sum is that of the hosts' sums, in the order of hosts; a host's is that of its ranks, in their order:
/// it depends on the grid, and on nothing else.
class Hierarchy {
 public:
  explicit Hierarchy(HierarchyParts parts);

  static bool carries(CollectiveKind kind);
  /// Of a kind that it carries.
  std::unique_ptr<Operation> start(const Request& request);

 private:
  struct State;
  class Stages;
  std::shared_ptr<State> state_;
};

}  // namespace annulus
