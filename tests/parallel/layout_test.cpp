#include "parallel/layout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "runtime/core/error.h"

namespace annulus {
namespace {

constexpr RingLayout kLayouts[] = {RingLayout::contiguous, RingLayout::striped, RingLayout::zigzag};

struct Ring {
  RingLayout layout;
  int size;
  std::int64_t local;  // n = S / R

  std::int64_t length() const { return size * local; }
  std::string str() const {
    return std::string(name_of(layout)) + " R=" + std::to_string(size) + " n=" + std::to_string(local);
  }
};

std::vector<Ring> rings() {
  std::vector<Ring> all;
  for (const RingLayout layout : kLayouts) {
    for (int size = 1; size <= 8; ++size) {
      for (const std::int64_t local : {1, 2, 3, 4, 7, 10}) {
        if ((size * local) % sequence_divisor(layout, size) == 0) all.push_back({layout, size, local});
      }
    }
  }
  return all;
}

// The layouts' definition, spelled out a second time and another way: who owns a position.
int owner(const Ring& ring, std::int64_t position) {
  switch (ring.layout) {
    case RingLayout::contiguous:
      return static_cast<int>(position / ring.local);
    case RingLayout::striped:
      return static_cast<int>(position % ring.size);
    case RingLayout::zigzag: {
      if (ring.size == 1) return 0;
      const std::int64_t chunk = position / (ring.local / 2);
      return static_cast<int>(std::min(chunk, 2 * ring.size - 1 - chunk));
    }
  }
  return -1;
}

TEST(Layout, PositionsAreThoseOwnedInAscendingOrder) {
  for (const Ring& ring : rings()) {
    SCOPED_TRACE(ring.str());
    std::vector<std::vector<std::int32_t>> expected(static_cast<std::size_t>(ring.size));
    for (std::int32_t s = 0; s < ring.length(); ++s) expected[static_cast<std::size_t>(owner(ring, s))].push_back(s);
    for (int rank = 0; rank < ring.size; ++rank) {
      EXPECT_EQ(positions(ring.layout, ring.size, rank, ring.length()), expected[static_cast<std::size_t>(rank)]);
    }
  }
}

TEST(Layout, ZigZagExample) {
  EXPECT_EQ(positions(RingLayout::zigzag, 4, 1, 16), (std::vector<std::int32_t>{2, 3, 12, 13}));
  EXPECT_EQ(positions(RingLayout::striped, 4, 1, 16), (std::vector<std::int32_t>{1, 5, 9, 13}));
  EXPECT_EQ(positions(RingLayout::contiguous, 4, 1, 16), (std::vector<std::int32_t>{4, 5, 6, 7}));
}

// Adds the pairs of a block, as global positions, and checks that the block agrees with the positions held.
void add_pairs(const Ring& ring, const AttentionBlock& block, int query_rank, int key_rank,
               std::map<std::pair<std::int32_t, std::int32_t>, int>& seen) {
  const auto queries = positions(ring.layout, ring.size, query_rank, ring.length());
  const auto keys = positions(ring.layout, ring.size, key_rank, ring.length());
  ASSERT_LT(block.query_begin, block.query_end);
  ASSERT_LT(block.key_begin, block.key_end);
  std::int64_t pairs = 0;
  for (std::int32_t i = 0; i < block.query_end - block.query_begin; ++i) {
    const std::int32_t query = block.query_position + i * block.query_stride;
    ASSERT_EQ(query, queries.at(static_cast<std::size_t>(block.query_begin + i)));
    for (std::int32_t j = 0; j < block.key_end - block.key_begin; ++j) {
      const std::int32_t key = block.key_position + j * block.key_stride;
      ASSERT_EQ(key, keys.at(static_cast<std::size_t>(block.key_begin + j)));
      const bool visible = !block.causal || j <= i + block.diagonal;
      if (visible) ++seen[{query, key}], ++pairs;
    }
  }
  EXPECT_EQ(pairs, block.pairs());
  EXPECT_GT(pairs, 0);
}

TEST(Layout, BlocksOfAllStepsAreTheCausalPairsEachOnce) {
  for (const Ring& ring : rings()) {
    SCOPED_TRACE(ring.str());
    std::map<std::pair<std::int32_t, std::int32_t>, int> seen;
    for (int query = 0; query < ring.size; ++query) {
      for (int key = 0; key < ring.size; ++key) {
        for (const AttentionBlock& block : ring_blocks(ring.layout, ring.size, query, key, ring.length())) {
          add_pairs(ring, block, query, key, seen);
        }
      }
    }
    const std::int64_t length = ring.length();
    EXPECT_EQ(static_cast<std::int64_t>(seen.size()), length * (length + 1) / 2);
    for (const auto& [pair, times] : seen) {
      EXPECT_LE(pair.second, pair.first);
      EXPECT_EQ(times, 1);
    }
  }
}

TEST(Layout, OneRankHasOneCausalBlockInEveryLayout) {
  AttentionBlock whole;
  whole.query_end = whole.key_end = 5;
  whole.causal = true;
  for (const RingLayout layout : kLayouts) {
    EXPECT_EQ(ring_blocks(layout, 1, 0, 0, 5), std::vector<AttentionBlock>{whole});
  }
}

TEST(Layout, ShapesOfBlocks) {
  const auto blocks = [](RingLayout layout, int query, int key) { return ring_blocks(layout, 4, query, key, 32); };
  EXPECT_EQ(blocks(RingLayout::contiguous, 0, 1).size(), 0u);
  EXPECT_FALSE(blocks(RingLayout::contiguous, 2, 1).at(0).causal);
  EXPECT_EQ(blocks(RingLayout::striped, 2, 1).at(0).diagonal, 0);
  EXPECT_EQ(blocks(RingLayout::striped, 1, 2).at(0).diagonal, -1);
  EXPECT_EQ(blocks(RingLayout::zigzag, 1, 1).size(), 3u);
  for (const AttentionBlock& block : blocks(RingLayout::zigzag, 2, 1)) {  // later rank: all queries x early key chunk
    EXPECT_FALSE(block.causal);
    EXPECT_EQ(block.key_end, 4);
  }
  for (const AttentionBlock& block : blocks(RingLayout::zigzag, 1, 2)) {  // earlier: late query chunk x all keys
    EXPECT_FALSE(block.causal);
    EXPECT_EQ(block.query_begin, 4);
  }
  EXPECT_TRUE(ring_blocks(RingLayout::striped, 3, 0, 1, 3).empty());  // n = 1: a later stripe holds nothing to see
}

std::string message_of(const auto& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing thrown";
}

TEST(Layout, Refusals) {
  EXPECT_EQ(message_of([] { check_ring_layout(RingLayout::zigzag, 4, 12); }),
            "sequence=12 cannot be split over cp=4 with layout zigzag (12 % 8 = 4); use a multiple of 8");
  EXPECT_THROW((void)positions(RingLayout::striped, 3, 0, 10), ShapeError);
  EXPECT_THROW((void)ring_blocks(RingLayout::contiguous, 3, 0, 0, 10), ShapeError);
  EXPECT_THROW(check_ring_layout(RingLayout::contiguous, 1, std::int64_t{1} << 31), ShapeError);
  EXPECT_THROW(check_ring_layout(RingLayout::contiguous, 1, 0), ShapeError);
  EXPECT_THROW((void)positions(RingLayout::striped, 2, 2, 4), InternalError);
  EXPECT_NO_THROW(check_ring_layout(RingLayout::zigzag, 1, 7));
  EXPECT_EQ(message_of([] { (void)parse_ring_layout("zig-zag"); }),
            "layout=zig-zag is no ring layout; use one of contiguous, striped, zigzag");
  for (const RingLayout layout : kLayouts) EXPECT_EQ(parse_ring_layout(name_of(layout)), layout);
}

}  // namespace
}  // namespace annulus
