#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include "runtime/core/tensor.h"
#include "runtime/cpu/keep_mask.h"
#include "runtime/cpu/parallel.h"
#include "runtime/cpu/tile_kernels.h"
#include "runtime/ops/attention.h"

namespace annulus {

/// Queries and keys of a tile of scores.
inline constexpr std::int64_t kQueryTile = 96, kKeyTile = 256;

/// Rows that products take at once: of whole tiles, and where a diagonal cuts the tile, so that they share their number
/// of visible keys.
inline constexpr std::int64_t kWholePanel = 24, kCutPanel = 6;

constexpr std::int64_t tiles_of(std::int64_t positions, std::int64_t tile) { return (positions + tile - 1) / tile; }

/// Factors between powers of e and of 2.
template <class T>
inline constexpr T kLog2E = static_cast<T>(1.44269504088896340736);
template <class T>
inline constexpr T kLn2 = static_cast<T>(0.69314718055994530942);

/// Kernels update earlier results where they lie; those of a step that leaves its own elsewhere are brought there.
inline void bring_results(const Tensor& earlier, const Tensor& result) {
  if (earlier.data == result.data) return;
  parallel_ranges(earlier.bytes(), 65536, [&](std::int64_t begin, std::int64_t end) {
    std::memcpy(result.data + begin, earlier.data + begin, static_cast<std::size_t>(end - begin));
  });
}

/// Sizes of one attention step; `queries` and `keys` are positions of one sequence.
struct AttentionSizes {
  std::int64_t sequences, heads, kv_heads, head_dim, queries, keys;

  AttentionSizes(const Attention& attention, const Shape& q, const Shape& kv)
      : sequences(attention.shape().sequences),
        heads(q.columns() / attention.shape().head_dim),
        kv_heads(kv.columns() / 2 / attention.shape().head_dim),
        head_dim(attention.shape().head_dim),
        queries(q.rows() / sequences),
        keys(kv.rows() / sequences) {}

  std::int64_t group() const { return heads / kv_heads; }
  double scale() const { return 1 / std::sqrt(static_cast<double>(head_dim)); }
  std::int64_t query_tiles() const { return tiles_of(queries, kQueryTile); }
  std::int64_t key_tiles() const { return tiles_of(keys, kKeyTile); }
  /// Columns of a tile of scores: fewer than kKeyTile where there are fewer keys.
  template <class T>
  std::int64_t tile_columns() const {
    return std::min(kKeyTile, padded_columns<T>(keys));
  }
};

/// What a block and a tile of query x key positions have in common. Every row of it sees at least one key: row i those
/// of [key_begin, key_limit(i)).
struct TileCut {
  const AttentionBlock* block;
  std::int64_t query_begin, query_end, key_begin, key_end;  ///< local positions

  std::int64_t key_limit(std::int64_t query) const {
    if (!block->causal) return key_end;
    return std::min<std::int64_t>(key_end, query - block->query_begin + block->diagonal + 1 + block->key_begin);
  }
  /// Where the part of [query, query_end) ends that products take at once.
  std::int64_t panel_end(std::int64_t query) const {
    return std::min(query_end, query + (key_limit(query) == key_end ? kWholePanel : kCutPanel));
  }
  /// Columns of a tile that begins at `first_key` that the queries from `query` on see.
  VisibleColumns visible(std::int64_t query, std::int64_t first_key) const {
    const std::int64_t last = key_end - first_key;
    const std::int64_t diagonal = query - block->query_begin + block->diagonal + 1 + block->key_begin - first_key;
    return {key_begin - first_key, block->causal ? diagonal : last, last};
  }
  /// The first query that sees `key`.
  std::int64_t first_query(std::int64_t key) const {
    if (!block->causal) return query_begin;
    return std::max<std::int64_t>(query_begin, key - block->key_begin - block->diagonal + block->query_begin);
  }
  /// Where the part of [key, key_end) ends that a product takes at once, with the queries from first_query(key) on.
  std::int64_t key_panel_end(std::int64_t key) const {
    return first_query(key_end - 1) == query_begin ? key_end : std::min(key + kCutPanel, key_end);
  }
  std::int64_t pairs() const {
    std::int64_t sum = 0;
    for (std::int64_t query = query_begin; query < query_end; ++query) sum += key_limit(query) - key_begin;
    return sum;
  }
};

/// Nothing where no query of the tile sees a key of it.
inline std::optional<TileCut> cut_tile(const AttentionBlock& block, std::int64_t query_tile, std::int64_t key_tile) {
  TileCut cut{&block, std::max<std::int64_t>(block.query_begin, query_tile * kQueryTile),
              std::min<std::int64_t>(block.query_end, (query_tile + 1) * kQueryTile),
              std::max<std::int64_t>(block.key_begin, key_tile * kKeyTile),
              std::min<std::int64_t>(block.key_end, (key_tile + 1) * kKeyTile)};
  cut.query_begin = cut.first_query(cut.key_begin);
  if (cut.query_begin >= cut.query_end || cut.key_begin >= cut.key_end) return std::nullopt;
  return cut;
}

/// Whether any of the blocks has queries, or keys, of [begin, end).
inline bool any_has_queries(const std::vector<AttentionBlock>& blocks, std::int64_t begin, std::int64_t end) {
  return std::any_of(blocks.begin(), blocks.end(),
                     [=](const AttentionBlock& block) { return block.query_begin < end && begin < block.query_end; });
}
inline bool any_has_keys(const std::vector<AttentionBlock>& blocks, std::int64_t begin, std::int64_t end) {
  return std::any_of(blocks.begin(), blocks.end(),
                     [=](const AttentionBlock& block) { return block.key_begin < end && begin < block.key_end; });
}

/// Dropout of one sequence's probabilities.
struct AttentionDropout {
  DropoutRule rule;
  std::uint32_t sequence = 0, head_offset = 0;

  AttentionDropout(const Attention& attention, const Tensor& row_ids, const Tensor& step, std::int64_t first_row)
      : rule{stream_key(attention.dropout().seed, attention.dropout().stream,
                        static_cast<std::uint64_t>(step.as<std::int32_t>()[0])),
             attention.dropout().rate},
        sequence(static_cast<std::uint32_t>(row_ids.as<std::int32_t>()[2 * first_row])),
        head_offset(static_cast<std::uint32_t>(attention.head_offset())) {}

  bool active() const { return rule.rate > 0; }
  /// Factors of the keys that `query` sees.
  template <class T>
  void factors(const TileCut& cut, std::int64_t head, std::int64_t query, T* to) const {
    const AttentionBlock& block = *cut.block;
    const std::int64_t position = block.query_position + (query - block.query_begin) * block.query_stride;
    const std::int64_t first = block.key_position + (cut.key_begin - block.key_begin) * block.key_stride;
    keep_factors(rule,
                 {sequence, head_offset + static_cast<std::uint32_t>(head), static_cast<std::uint32_t>(position), 0}, 3,
                 static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(block.key_stride),
                 cut.key_limit(query) - cut.key_begin, to);
  }
};

/// Hands out parts of a workspace, each on a cache line of its own. With no memory it measures.
class WorkspaceCarver {
 public:
  explicit WorkspaceCarver(std::byte* memory) : memory_(memory) {}

  template <class T>
  T* take(std::int64_t count) {
    constexpr std::int64_t kLine = 64;
    const std::int64_t at = used_;
    used_ += (count * static_cast<std::int64_t>(sizeof(T)) + kLine - 1) / kLine * kLine;
    return memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + at);
  }
  std::int64_t used() const { return used_; }

 private:
  std::byte* memory_;
  std::int64_t used_ = 0;
};

}  // namespace annulus
