#pragma once

#include <cstdint>

#include "runtime/cuda/pack.h"
#include "runtime/ops/attention_merge.h"

struct CUstream_st;

namespace annulus {

/// What stands around cuDNN's attention: rows that it leaves alone, rows that it gives for merging.

/// Some positions of every sequence: [begin, begin + count) of `positions`.
struct SequenceRows {
  std::int64_t sequences = 0, positions = 0, begin = 0, count = 0;

  /// Row of `position`, counted from `begin`, in a tensor that holds all positions.
  ANNULUS_BODY std::int64_t row(std::int64_t sequence, std::int64_t position) const {
    return sequence * positions + begin + position;
  }
};

/// Sets every 4-byte word of all rows but `rows` to `value`; all rows have `row_words`.
struct FillOtherRows {
  std::uint32_t* words;
  SequenceRows rows;
  std::int64_t row_words;
  std::uint32_t value;

  std::int64_t elements() const { return rows.sequences * (rows.positions - rows.count) * row_words; }
  ANNULUS_BODY void operator()(std::int64_t i) const {
    const std::int64_t others = rows.positions - rows.count, other = i / row_words;
    const std::int64_t sequence = other / others, position = other % others;
    const std::int64_t row = sequence * rows.positions + (position < rows.begin ? position : position + rows.count);
    words[row * row_words + i % row_words] = value;
  }
};

/// lse [all rows, heads] -> packed [sequences, heads, rows.count], as cuDNN's backward reads it.
struct PackLogSumExp {
  const float* lse;
  float* packed;
  SequenceRows rows;
  std::int64_t heads;

  std::int64_t elements() const { return rows.sequences * heads * rows.count; }
  ANNULUS_BODY void operator()(std::int64_t i) const {
    const std::int64_t position = i % rows.count, head = i / rows.count % heads, sequence = i / rows.count / heads;
    packed[i] = lse[rows.row(sequence, position) * heads + head];
  }
};

/// packed [sequences, rows.count, columns] -> wide [all rows, columns].
template <class T>
struct WidenPackedRows {
  float* wide;
  const T* packed;
  SequenceRows rows;
  std::int64_t columns;

  std::int64_t elements() const { return rows.sequences * rows.count * columns; }
  ANNULUS_BODY void operator()(std::int64_t i) const {
    const std::int64_t row = i / columns;
    wide[rows.row(row / rows.count, row % rows.count) * columns + i % columns] = widened(packed[i]);
  }
};

/// sum = earlier + packed; packed is [sequences, rows.count, columns], the others [all rows, columns].
template <class T>
struct AddPackedRows {
  EitherWidth<T> sum;
  const float *earlier, *packed;
  SequenceRows rows;
  std::int64_t columns;

  std::int64_t elements() const { return rows.sequences * rows.positions * columns; }
  ANNULUS_BODY void operator()(std::int64_t i) const {
    const std::int64_t row = i / columns, sequence = row / rows.positions, position = row % rows.positions - rows.begin;
    const bool added = position >= 0 && position < rows.count;
    const std::int64_t at = added ? (sequence * rows.count + position) * columns + i % columns : 0;
    sum.write(i, earlier[i] + (added ? packed[at] : 0.0f));
  }
};

/// Merges packed_out [sequences, rows.count, heads, head_dim] with packed_lse [sequences, heads, rows.count] and what
/// earlier steps found: out and earlier are [all rows, heads * head_dim], lse [all rows, heads]. A warp works on one
/// head of one row.
template <class T>
struct MergePackedRows {
  EitherWidth<T> out;
  const float* earlier;
  float* lse;
  const float *packed_out, *packed_lse;
  SequenceRows rows;
  std::int64_t heads, head_dim;

  std::int64_t warps() const { return rows.sequences * rows.positions * heads; }
  template <class Block>
  ANNULUS_BODY void operator()(Block& block) const {
    const std::int64_t warp = block.index() * (block.threads() / kWarp) + block.thread() / kWarp;
    const bool works = warp < rows.sequences * rows.positions * heads;
    const std::int64_t head = warp % heads, row = warp / heads, sequence = row / rows.positions;
    const std::int64_t position = row % rows.positions - rows.begin;
    const bool merged = works && position >= 0 && position < rows.count;
    const int lane = block.thread() % kWarp;
    AttentionMerge<float> merge{1, 0, 0};
    const float* other = earlier;
    if (merged) {
      merge = AttentionMerge<float>::of(lse[warp], packed_lse[(sequence * heads + head) * rows.count + position]);
      other = packed_out + ((sequence * rows.count + position) * heads + head) * head_dim;
    }
    for (std::int64_t j = lane; works && j < head_dim; j += kWarp) {
      const std::int64_t at = warp * head_dim + j;
      out.write(at, merged ? merge.kept * earlier[at] + merge.added * other[j] : earlier[at]);
    }
    block.sync();  // all lanes have read the old log-sum-exp
    if (merged && lane == 0) lse[warp] = merge.lse;
  }
};

template <class Launcher, class Element>
void launch_rows(const Launcher& launcher, const Element& element) {
  for_each(launcher, element.elements(), element);
}

template <class Launcher, class T>
void launch_rows(const Launcher& launcher, const MergePackedRows<T>& merge) {
  launcher(Grid{divide_up(merge.warps(), kThreads / kWarp)}, merge);
}

/// Puts them on a stream of the current device. Throws DeviceError.
template <class Rows>
void enqueue(CUstream_st* stream, const Rows& rows);

}  // namespace annulus
