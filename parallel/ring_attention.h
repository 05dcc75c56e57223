#pragma once

#include "parallel/layout.h"
#include "runtime/program/program.h"

namespace annulus {

/// Expands every attention of the program, and its gradient, into a ring over the cp axis (Ring Attention, arXiv
/// 2310.01889). K/V travel, in their own kv heads, one block ahead of the compute; blocks merge by log-sum-exp in the
/// order of the ring, so results are reproducible. In the backward dK/dV travel with their keys from the second step on
/// and meet the home rank's own share when they come home: R - 1 hops of K/V forward, and R - 1 of K/V and R - 1 of
/// dK/dV backward. With one rank it is a single step. Throws ShapeError where `sequence_length` (global) does not suit
/// the layout.
void expand_ring_attention(Program& program, RingLayout layout, std::int64_t sequence_length);

}  // namespace annulus
