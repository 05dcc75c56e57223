#pragma once

#include "runtime/core/communicator.h"

namespace annulus {

/// What a collective costs, by the alpha-beta model: the one place for these formulas (analytic-model.md, section 5).
///
/// `payload_bytes`, M throughout, is the full tensor of an all-gather, reduce-scatter, all-reduce, broadcast, reduce,
/// gather or scatter; the local buffer of an all-to-all; the message of send, recv and shift (NCCL-tests' "size").
/// A group of one rank moves nothing, and takes no time.

/// NCCL-tests' factor: bus bandwidth = factor * M / seconds, comparable with the link's own (`doc/PERFORMANCE.md`).
double bus_bandwidth_factor(CollectiveKind kind, int group_size);

/// Bytes that a rank sends (the busiest rank, where they differ) under a bandwidth-optimal algorithm.
/// Source: the notes' appendix B, corrected (errata E-B.ag: with M the full tensor, all-gather = reduce-scatter).
double wire_bytes(CollectiveKind kind, int group_size, double payload_bytes);

/// Messages that follow one another under a ring algorithm.
int ring_steps(CollectiveKind kind, int group_size);

/// A link as one rank sees it: seconds per message, bytes per second and direction.
struct Link {
  double latency_seconds = 0;
  double bandwidth = 0;
};

/// Seconds under a ring algorithm: ring_steps * latency + wire_bytes / bandwidth.
double ring_seconds(CollectiveKind kind, int group_size, double payload_bytes, const Link& link);

/// Seconds of an all-reduce by a pipelined double tree: 2 lg N * latency + 2 M / bandwidth.
double tree_all_reduce_seconds(int group_size, double payload_bytes, const Link& link);

/// A group spread evenly over nodes; each of its ranks has its own network interface.
struct NodeGroup {
  int nodes = 1;
  int ranks_per_node = 1;
  Link intra;  ///< between ranks of one node
  Link inter;  ///< between nodes, per interface
};

/// Bus bandwidth of a rank of the group: `ranks_per_node` rings run side by side, so min(k * inter, intra).
double group_bandwidth(const NodeGroup& group);

/// Seconds of a ring over the whole group: of its steps, nodes - 1 per pass over the ring cross the network.
double node_ring_seconds(CollectiveKind kind, double payload_bytes, const NodeGroup& group);

/// Seconds of an all-reduce in three stages: reduce-scatter within nodes, all-reduce between them, all-gather within.
/// Fewer network steps than a ring over all, more bytes: better for short messages.
double hierarchical_all_reduce_seconds(double payload_bytes, const NodeGroup& group);

}  // namespace annulus
