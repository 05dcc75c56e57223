#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include "runtime/core/math.h"
#include "runtime/cuda/dropout.h"
#include "runtime/cuda/pack.h"
#include "runtime/ops/attention.h"

namespace annulus {

/// Attention by tiles of queries x keys without tensor cores: in f32, or f64, whatever q, k and v are stored as. A
/// block's kThreads threads stand as a square of 16 x 16; each holds kTile / 16 rows of a tile, 16 apart, and of these
/// every 16th column.
inline constexpr int kSide = 16;
static_assert(kSide * kSide == kThreads);
/// Widest head.
inline constexpr std::int64_t kLargestHeadDim = 256;
/// Blocks of one step at most: no layout has more than three.
inline constexpr std::size_t kLaunchBlocks = 16;

/// Scores that nobody sees.
template <class T>
inline constexpr T kUnseen = -std::numeric_limits<T>::infinity();

/// What the kernels of one attention step are told.
struct AttentionPlan {
  std::int64_t sequences, heads, kv_heads, head_dim, queries, keys, head_offset;
  double scale;
  DeviceDropout dropout;
  const std::int32_t* row_ids;
  AttentionBlock blocks[kLaunchBlocks] = {};
  int block_count = 0;
  bool packed = false;  ///< heads of q, kv and dout begin aligned

  /// Throws InternalError for more than kLaunchBlocks blocks.
  AttentionPlan(const Attention& attention, const std::vector<AttentionBlock>& of_step,
                const KernelArguments& arguments)
      : sequences(attention.shape().sequences),
        heads(arguments.inputs[0].shape.columns() / attention.shape().head_dim),
        kv_heads(arguments.inputs[1].shape.columns() / 2 / attention.shape().head_dim),
        head_dim(attention.shape().head_dim),
        queries(arguments.inputs[0].shape.rows() / sequences),
        keys(arguments.inputs[1].shape.rows() / sequences),
        head_offset(attention.head_offset()),
        scale(1 / std::sqrt(static_cast<double>(head_dim))),
        dropout(attention.dropout(), arguments.inputs[3]),
        row_ids(arguments.inputs[2].as<std::int32_t>()),
        block_count(static_cast<int>(of_step.size())) {
    if (of_step.size() > kLaunchBlocks) throw InternalError("an attention step of too many blocks");
    std::copy(of_step.begin(), of_step.end(), blocks);
  }

  ANNULUS_BODY std::int64_t group() const { return heads / kv_heads; }
  /// First element of a query's head; keys follow at `key_at`, values kv_stride() / 2 behind them.
  ANNULUS_BODY std::int64_t query_at(std::int64_t sequence, std::int64_t query, std::int64_t head) const {
    return ((sequence * queries + query) * heads + head) * head_dim;
  }
  ANNULUS_BODY std::int64_t key_at(std::int64_t sequence, std::int64_t key, std::int64_t kv_head) const {
    return ((sequence * keys + key) * 2 * kv_heads + kv_head) * head_dim;
  }
  ANNULUS_BODY std::int64_t query_stride() const { return heads * head_dim; }
  ANNULUS_BODY std::int64_t kv_stride() const { return 2 * kv_heads * head_dim; }

  /// Whether any query of [first_query, + tile) sees a key of [first_key, + tile) in the block.
  ANNULUS_BODY bool touches(const AttentionBlock& block, std::int64_t first_query, std::int64_t first_key,
                            std::int64_t tile) const {
    const std::int64_t last = (first_query + tile < block.query_end ? first_query + tile : block.query_end) - 1;
    if (last < block.query_begin || last < first_query) return false;
    const std::int64_t limit = block.key_begin + block.visible_keys(last - block.query_begin);
    return first_key < limit && first_key + tile > block.key_begin;
  }
  /// Whether `query` sees `key` in the block.
  ANNULUS_BODY bool sees(const AttentionBlock& block, std::int64_t query, std::int64_t key) const {
    return query >= block.query_begin && query < block.query_end && key >= block.key_begin &&
           key - block.key_begin < block.visible_keys(query - block.query_begin);
  }
  /// Dropout's factor for a pair of the block.
  template <class T>
  ANNULUS_BODY T factor(const AttentionBlock& block, std::int64_t sequence, std::int64_t head, std::int64_t query,
                        std::int64_t key) const {
    const std::int64_t of_query = block.query_position + (query - block.query_begin) * block.query_stride;
    const std::int64_t of_key = block.key_position + (key - block.key_begin) * block.key_stride;
    const PhiloxCounter words = philox(
        {static_cast<std::uint32_t>(row_ids[2 * sequence * queries]), static_cast<std::uint32_t>(head_offset + head),
         static_cast<std::uint32_t>(of_query), static_cast<std::uint32_t>(of_key / 4)},
        dropout.key());
    return dropout.factor<T>(word_of(words, of_key % 4));
  }
};

/// The shape of a kernel: kTile queries and keys a tile, heads of up to 16 kColumns.
template <class T, int kTileOf, int kColumnsOf>
struct TileShape {
  using Stored = T;
  using Value = Wide<T>;
  static constexpr int kTile = kTileOf, kColumns = kColumnsOf, kRows = kTile / kSide;
  static constexpr int kDepth = kSide * kColumns;
  static constexpr int kWidth = kDepth + 1;      ///< of a row in shared memory; odd, so that columns lie in all banks
  static constexpr int kScoreWidth = kTile + 1;  ///< of a row of scores
};

/// Rows [0, kTile) of a matrix to shared memory, times `factor`; what lies beyond `count` or `depth` is 0.
template <class Shape, class Block, class T>
ANNULUS_BODY void load_tile(Block& block, const T* from, std::int64_t stride, std::int64_t count, std::int64_t depth,
                            bool packed, Wide<T> factor, Wide<T>* to) {
  constexpr int kPack = kPackOf<T>;
  for (int i = block.thread() * kPack; i < Shape::kTile * Shape::kDepth; i += kThreads * kPack) {
    const int row = i / Shape::kDepth, column = i % Shape::kDepth;
    const std::int64_t left = row < count ? depth - column : 0;
    const T* at = from + row * stride + column;
    const auto values = packed && left > 0 ? load_pack<kPack>(at) : load_some<kPack>(at, left);
    ANNULUS_UNROLL
    for (int k = 0; k < kPack; ++k) to[row * Shape::kWidth + column + k] = values[k] * factor;
  }
}

/// result[i][j] = row (ty + 16 i) of `a` times row (tx + 16 j) of `b`.
template <class Shape, class T>
ANNULUS_BODY void score_product(int thread, const T* a, const T* b, std::int64_t depth,
                                T (&result)[Shape::kRows][Shape::kRows]) {
  ANNULUS_UNROLL
  for (int i = 0; i < Shape::kRows; ++i) {
    ANNULUS_UNROLL
    for (int j = 0; j < Shape::kRows; ++j) result[i][j] = T(0);
  }
  const T *left = a + thread / kSide * Shape::kWidth, *right = b + thread % kSide * Shape::kWidth;
  for (int d = 0; d < depth; ++d) {
    T of_left[Shape::kRows], of_right[Shape::kRows];
    ANNULUS_UNROLL
    for (int i = 0; i < Shape::kRows; ++i) of_left[i] = left[i * kSide * Shape::kWidth + d];
    ANNULUS_UNROLL
    for (int j = 0; j < Shape::kRows; ++j) of_right[j] = right[j * kSide * Shape::kWidth + d];
    ANNULUS_UNROLL
    for (int i = 0; i < Shape::kRows; ++i) {
      ANNULUS_UNROLL
      for (int j = 0; j < Shape::kRows; ++j) result[i][j] += of_left[i] * of_right[j];
    }
  }
}

/// sum[i][c] += over k of scores(row ty + 16 i, k) * values[k][tx + 16 c]. Rows of the scores are `row_stride` apart,
/// their columns `column_stride`.
template <class Shape, class T>
ANNULUS_BODY void value_product(int thread, const T* scores, int row_stride, int column_stride, const T* values,
                                T (&sum)[Shape::kRows][Shape::kColumns]) {
  const T* left = scores + thread / kSide * row_stride;
  for (int k = 0; k < Shape::kTile; ++k) {
    T of_left[Shape::kRows], of_right[Shape::kColumns];
    ANNULUS_UNROLL
    for (int i = 0; i < Shape::kRows; ++i) of_left[i] = left[i * kSide * row_stride + k * column_stride];
    ANNULUS_UNROLL
    for (int c = 0; c < Shape::kColumns; ++c) of_right[c] = values[k * Shape::kWidth + thread % kSide + c * kSide];
    ANNULUS_UNROLL
    for (int i = 0; i < Shape::kRows; ++i) {
      ANNULUS_UNROLL
      for (int c = 0; c < Shape::kColumns; ++c) sum[i][c] += of_left[i] * of_right[c];
    }
  }
}

/// to[i][c] *= factor, or to[i][c] = 0.
template <class Shape, class T>
ANNULUS_BODY void clear_sums(T (&sum)[Shape::kRows][Shape::kColumns]) {
  ANNULUS_UNROLL
  for (int i = 0; i < Shape::kRows; ++i) {
    ANNULUS_UNROLL
    for (int c = 0; c < Shape::kColumns; ++c) sum[i][c] = T(0);
  }
}

/// Query-key pairs of the step.
inline std::int64_t visited_pairs(const AttentionPlan& plan) {
  std::int64_t pairs = 0;
  for (int i = 0; i < plan.block_count; ++i) pairs += plan.blocks[i].pairs();
  return pairs * plan.heads * plan.sequences;
}

/// Calls `kernel(TileShape{})` with the narrowest shape that holds the head. Throws DeviceError where none does.
template <class T, int kNarrow, int kMiddle, int kWide, class Kernel>
void with_tile_shape(std::int64_t head_dim, const Kernel& kernel) {
  if (head_dim <= kSide * 4) return kernel(TileShape<T, kNarrow, 4>());
  if (head_dim <= kSide * 8) return kernel(TileShape<T, kMiddle, 8>());
  if (head_dim <= kLargestHeadDim) return kernel(TileShape<T, kWide, 16>());
  throw DeviceError("a head of " + std::to_string(head_dim) + " is wider than " + std::to_string(kLargestHeadDim) +
                    ", the widest that the attention kernels take; use more heads");
}

}  // namespace annulus
