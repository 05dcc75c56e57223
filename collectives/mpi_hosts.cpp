#include "collectives/mpi_hosts.h"

#include <algorithm>
#include <set>
#include <utility>

namespace annulus {

Segments exchange_segments(const MpiGroup& group, std::unique_ptr<SharedSegment> own) {
  const std::vector<SegmentName> names = gathered(group, own ? own->name() : SegmentName{});
  Segments segments(names.size());
  bool alone = true, complete = own != nullptr;
  for (int rank = 0; complete && rank < group.size; ++rank) {
    const SegmentName& name = names[static_cast<std::size_t>(rank)];
    if (rank == group.rank || group.hosts[static_cast<std::size_t>(rank)] != group.host()) continue;
    alone = false;
    complete = (segments[static_cast<std::size_t>(rank)] = SharedSegment::open(name)) != nullptr;
  }
  complete = all_of_group(group, complete);
  if (all_of_group(group, alone) || !complete) return {};
  own->withdraw();
  segments[static_cast<std::size_t>(group.rank)] = std::move(own);
  return segments;
}

std::unique_ptr<WindowQueue> open_window(const MpiGroup& group) {
  const std::int64_t slot_bytes =
      std::max({group.shared->options.window_slot_bytes, std::int64_t{64} * group.size, kLeastSlotBytes});
  if (group.size == 1 || hosts_of(group) > 1 || group.shared->options.window_slot_bytes == 0) return nullptr;
  std::unique_ptr<SharedSegment> segment;
  if (group.rank == 0) segment = SharedSegment::create(SharedWindow::total_bytes(group.size, slot_bytes));
  const SegmentName name = gathered(group, segment ? segment->name() : SegmentName{}).front();
  if (group.rank > 0) segment = SharedSegment::open(name);
  if (!all_of_group(group, segment != nullptr)) return nullptr;
  segment->withdraw();
  return std::make_unique<WindowQueue>(std::make_unique<SharedWindow>(std::move(segment), group.size, slot_bytes),
                                       GroupMemory{group.shared->memory, group.members}, group.rank);
}

int hosts_of(const MpiGroup& group) {
  return static_cast<int>(std::set<std::uint64_t>(group.hosts.begin(), group.hosts.end()).size());
}

std::optional<HostGrid> host_grid_of(const MpiGroup& group) {
  const int hosts = hosts_of(group);
  if (hosts == 1 || hosts == group.size || group.size % hosts != 0) return std::nullopt;
  const int ranks = group.size / hosts;
  for (int rank = 0; rank < group.size; ++rank)
    if (group.hosts[static_cast<std::size_t>(rank)] != group.hosts[static_cast<std::size_t>(rank / ranks * ranks)])
      return std::nullopt;
  return HostGrid{hosts, ranks, group.rank / ranks, group.rank % ranks};
}

}  // namespace annulus
