#include "parallel/layout.h"

#include <fmt/format.h>

#include <array>
#include <limits>
#include <string>

#include "runtime/core/error.h"

namespace annulus {
namespace {

constexpr std::array kLayouts = {RingLayout::contiguous, RingLayout::striped, RingLayout::zigzag};

/// Consecutive local indices whose global positions have one stride.
struct Run {
  std::int32_t begin, end;
  std::int32_t position, stride;

  std::int32_t last() const { return position + (end - begin - 1) * stride; }
};

/// The runs of a rank, in local order. This is the layouts' one definition: all else follows from it.
std::vector<Run> runs(RingLayout layout, int ring_size, int rank, std::int64_t sequence_length) {
  check_ring_layout(layout, ring_size, sequence_length);
  if (rank < 0 || rank >= ring_size) throw InternalError(fmt::format("rank {} of a ring of {}", rank, ring_size));
  const auto length = static_cast<std::int32_t>(sequence_length);
  const std::int32_t local = length / ring_size;
  if (ring_size == 1) return {{0, local, 0, 1}};
  switch (layout) {
    case RingLayout::contiguous:
      return {{0, local, rank * local, 1}};
    case RingLayout::striped:
      return {{0, local, rank, ring_size}};
    case RingLayout::zigzag: {
      const std::int32_t half = local / 2;
      return {{0, half, rank * half, 1}, {half, local, length - (rank + 1) * half, 1}};
    }
  }
  throw InternalError("unknown ring layout");
}

AttentionBlock block_of(const Run& query, const Run& key) {
  AttentionBlock block;
  block.query_begin = query.begin;
  block.query_end = query.end;
  block.key_begin = key.begin;
  block.key_end = key.end;
  block.query_position = query.position;
  block.query_stride = query.stride;
  block.key_position = key.position;
  block.key_stride = key.stride;
  // Two runs that overlap start within a stride of each other, so their mask is a diagonal: 0, or -1 for a later key.
  block.causal = key.last() > query.position;
  block.diagonal = block.causal && key.position > query.position ? -1 : 0;
  return block;
}

}  // namespace

std::string_view name_of(RingLayout layout) {
  switch (layout) {
    case RingLayout::contiguous:
      return "contiguous";
    case RingLayout::striped:
      return "striped";
    case RingLayout::zigzag:
      return "zigzag";
  }
  return "?";
}

RingLayout parse_ring_layout(std::string_view name) {
  for (const RingLayout layout : kLayouts) {
    if (name_of(layout) == name) return layout;
  }
  throw ConfigError(
      fmt::format("layout={} is no ring layout; use one of contiguous, striped, zigzag", std::string(name)));
}

std::int64_t sequence_divisor(RingLayout layout, int ring_size) {
  if (ring_size < 1) throw InternalError(fmt::format("a ring of {} ranks", ring_size));
  return ring_size > 1 && layout == RingLayout::zigzag ? 2 * static_cast<std::int64_t>(ring_size) : ring_size;
}

void check_ring_layout(RingLayout layout, int ring_size, std::int64_t sequence_length) {
  const std::int64_t divisor = sequence_divisor(layout, ring_size);
  if (sequence_length < 1 || sequence_length > std::numeric_limits<std::int32_t>::max()) {
    throw ShapeError(fmt::format("sequence={} is out of range; use 1 to {}", sequence_length,
                                 std::numeric_limits<std::int32_t>::max()));
  }
  if (sequence_length % divisor == 0) return;
  throw ShapeError(fmt::format(
      "sequence={} cannot be split over cp={} with layout {} ({} % {} = {}); use a multiple of {}", sequence_length,
      ring_size, name_of(layout), sequence_length, divisor, sequence_length % divisor, divisor));
}

std::vector<std::int32_t> positions(RingLayout layout, int ring_size, int rank, std::int64_t sequence_length) {
  std::vector<std::int32_t> owned;
  for (const Run& run : runs(layout, ring_size, rank, sequence_length)) {
    for (std::int32_t i = run.begin; i < run.end; ++i) owned.push_back(run.position + (i - run.begin) * run.stride);
  }
  return owned;
}

std::vector<AttentionBlock> ring_blocks(RingLayout layout, int ring_size, int query_rank, int key_rank,
                                        std::int64_t sequence_length) {
  std::vector<AttentionBlock> blocks;
  const std::vector<Run> keys = runs(layout, ring_size, key_rank, sequence_length);
  for (const Run& query : runs(layout, ring_size, query_rank, sequence_length)) {
    for (const Run& key : keys) {
      if (key.position <= query.last()) blocks.push_back(block_of(query, key));
    }
  }
  return blocks;
}

}  // namespace annulus
