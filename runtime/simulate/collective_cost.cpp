#include "runtime/simulate/collective_cost.h"

#include <algorithm>
#include <cmath>

#include "runtime/core/error.h"

namespace annulus {
namespace {

/// How often the tensor passes round the ring; 0 for point to point.
int ring_passes(CollectiveKind kind) {
  switch (kind) {
    case CollectiveKind::all_reduce:
      return 2;
    case CollectiveKind::all_gather:
    case CollectiveKind::reduce_scatter:
    case CollectiveKind::all_to_all:
    case CollectiveKind::broadcast:
    case CollectiveKind::gather:
    case CollectiveKind::scatter:
    case CollectiveKind::reduce:
      return 1;
    case CollectiveKind::send:
    case CollectiveKind::recv:
    case CollectiveKind::shift:
      return 0;
  }
  throw InternalError("unknown kind of collective");
}

}  // namespace

double bus_bandwidth_factor(CollectiveKind kind, int group_size) {
  const double others = static_cast<double>(group_size - 1) / group_size;
  switch (kind) {
    case CollectiveKind::all_reduce:
      return 2 * others;
    case CollectiveKind::all_gather:
    case CollectiveKind::reduce_scatter:
    case CollectiveKind::all_to_all:
    case CollectiveKind::gather:
    case CollectiveKind::scatter:
      return others;
    case CollectiveKind::broadcast:
    case CollectiveKind::reduce:
    case CollectiveKind::send:
    case CollectiveKind::recv:
    case CollectiveKind::shift:
      return 1;
  }
  throw InternalError("unknown kind of collective");
}

double wire_bytes(CollectiveKind kind, int group_size, double payload_bytes) {
  if (group_size == 1) return 0;
  // (N - 1) M / N in this order is exact wherever the result is a whole number of bytes.
  const double factor_times_size = std::round(bus_bandwidth_factor(kind, group_size) * group_size);
  return factor_times_size * payload_bytes / group_size;
}

int ring_steps(CollectiveKind kind, int group_size) {
  if (group_size == 1) return 0;
  const int passes = ring_passes(kind);
  return passes == 0 ? 1 : passes * (group_size - 1);
}

double ring_seconds(CollectiveKind kind, int group_size, double payload_bytes, const Link& link) {
  if (group_size == 1) return 0;
  return ring_steps(kind, group_size) * link.latency_seconds +
         wire_bytes(kind, group_size, payload_bytes) / link.bandwidth;
}

double tree_all_reduce_seconds(int group_size, double payload_bytes, const Link& link) {
  if (group_size == 1) return 0;
  return 2 * std::log2(group_size) * link.latency_seconds + 2 * payload_bytes / link.bandwidth;
}

double group_bandwidth(const NodeGroup& group) {
  if (group.nodes == 1) return group.intra.bandwidth;
  if (group.ranks_per_node == 1) return group.inter.bandwidth;
  return std::min(group.ranks_per_node * group.inter.bandwidth, group.intra.bandwidth);
}

double node_ring_seconds(CollectiveKind kind, double payload_bytes, const NodeGroup& group) {
  const int size = group.nodes * group.ranks_per_node;
  if (size == 1) return 0;
  const int steps = ring_steps(kind, size);
  const int inter_steps = group.nodes == 1 ? 0 : std::min(steps, std::max(1, ring_passes(kind) * (group.nodes - 1)));
  return (steps - inter_steps) * group.intra.latency_seconds + inter_steps * group.inter.latency_seconds +
         wire_bytes(kind, size, payload_bytes) / group_bandwidth(group);
}

double hierarchical_all_reduce_seconds(double payload_bytes, const NodeGroup& group) {
  const double within = ring_seconds(CollectiveKind::reduce_scatter, group.ranks_per_node, payload_bytes, group.intra) +
                        ring_seconds(CollectiveKind::all_gather, group.ranks_per_node, payload_bytes, group.intra);
  return within +
         ring_seconds(CollectiveKind::all_reduce, group.nodes, payload_bytes / group.ranks_per_node, group.inter);
}

}  // namespace annulus
