#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "runtime/ops/attention_block.h"

namespace annulus {

/// Which positions of a sequence each rank of a ring (the cp axis) owns; R is the ring's size, n = S / R.
/// - contiguous: rank r owns the run [r n, (r + 1) n). Causal work is uneven: late ranks do most of it.
/// - striped: rank r owns r, r + R, r + 2R, ... (Striped Attention, arXiv:2311.09431).
/// - zigzag: of 2R chunks, rank r owns chunk r and chunk 2R - 1 - r. Causal work is even.
/// Over a ring of one rank, all are the same.
enum class RingLayout : std::uint8_t { contiguous, striped, zigzag };

std::string_view name_of(RingLayout layout);
/// Throws ConfigError, which lists the valid names.
RingLayout parse_ring_layout(std::string_view name);

/// A sequence's length must be a multiple of this.
std::int64_t sequence_divisor(RingLayout layout, int ring_size);
/// Throws ShapeError unless a sequence of `sequence_length` tokens can be laid out over the ring.
void check_ring_layout(RingLayout layout, int ring_size, std::int64_t sequence_length);

/// Global positions in the sequence that `rank` owns, in the order in which it holds them: [n], ascending.
/// Throws ShapeError where the sequence does not divide.
std::vector<std::int32_t> positions(RingLayout layout, int ring_size, int rank, std::int64_t sequence_length);

/// The causal attention of one ring step, in which `query_rank` works on the keys of `key_rank`, as rectangles over its
/// n local queries and n local keys. Each block's positions are one arithmetic run for queries and one for keys; blocks
/// are disjoint, ordered by query and then by key, and together they hold exactly the pairs with key position <= query
/// position. A step without such pairs has no blocks. Throws ShapeError where the sequence does not divide.
/// Source: the notes' section 7.4.1, corrected (errata E-7.4.1-3: who sees which half under zig-zag).
std::vector<AttentionBlock> ring_blocks(RingLayout layout, int ring_size, int query_rank, int key_rank,
                                        std::int64_t sequence_length);

}  // namespace annulus
