#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "collectives/hierarchical.h"
#include "collectives/mpi_group.h"
#include "collectives/shared_segment.h"
#include "collectives/shared_window.h"

namespace annulus {

/// The segments of all ranks of this host, by rank, `own` among them; empty, on all ranks, where any could not be
/// opened or none would have another rank's. Collective.
using Segments = std::vector<std::unique_ptr<SharedSegment>>;
Segments exchange_segments(const MpiGroup& group, std::unique_ptr<SharedSegment> own);

/// A window shared by all ranks of the group; null where they are on several hosts, or have no memory for it.
/// Collective.
std::unique_ptr<WindowQueue> open_window(const MpiGroup& group);

/// How the group lies on its hosts, where it does as HostGrid wants it, with several hosts of several ranks.
std::optional<HostGrid> host_grid_of(const MpiGroup& group);

/// On how many hosts the group's ranks are.
int hosts_of(const MpiGroup& group);

}  // namespace annulus
