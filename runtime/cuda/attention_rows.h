#pragma once

#include <cstdint>

#include "runtime/cuda/block.h"
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

/// sum [all rows, columns] += packed [sequences, rows.count, columns].
struct AddPackedRows {
  float* sum;
  const float* packed;
  SequenceRows rows;
  std::int64_t columns;

  std::int64_t elements() const { return rows.sequences * rows.count * columns; }
  ANNULUS_BODY void operator()(std::int64_t i) const {
    const std::int64_t row = i / columns;
    sum[rows.row(row / rows.count, row % rows.count) * columns + i % columns] += packed[i];
  }
};

/// Merges packed_out [sequences, rows.count, heads, head_dim] with packed_lse [sequences, heads, rows.count] into out
/// [all rows, heads * head_dim] and lse [all rows, heads]. A warp works on one head of one row.
struct MergePackedRows {
  float *out, *lse;
  const float *packed_out, *packed_lse;
  SequenceRows rows;
  std::int64_t heads, head_dim;

  std::int64_t warps() const { return rows.sequences * rows.count * heads; }
  template <class Block>
  ANNULUS_BODY void operator()(Block& block) const {
    const std::int64_t warps_of_block = block.threads() / kWarp;
    const std::int64_t warp = block.index() * warps_of_block + block.thread() / kWarp;
    const bool works = warp < rows.sequences * rows.count * heads;
    const std::int64_t head = warp % heads, position = warp / heads % rows.count, sequence = warp / heads / rows.count;
    const std::int64_t row_head = rows.row(sequence, position) * heads + head;
    const int lane = block.thread() % kWarp;
    AttentionMerge<float> merge{};
    if (works) {
      merge = AttentionMerge<float>::of(lse[row_head], packed_lse[(sequence * heads + head) * rows.count + position]);
      for (std::int64_t j = lane; j < head_dim; j += kWarp) {
        float& result = out[row_head * head_dim + j];
        result = merge.kept * result + merge.added * packed_out[warp * head_dim + j];
      }
    }
    block.sync();  // all lanes have read the old log-sum-exp
    if (works && lane == 0) lse[row_head] = merge.lse;
  }
};

template <class Launcher, class Element>
void launch_rows(const Launcher& launcher, const Element& element) {
  for_each(launcher, element.elements(), element);
}

template <class Launcher>
void launch_rows(const Launcher& launcher, const MergePackedRows& merge) {
  launcher(Grid{divide_up(merge.warps(), kThreads / kWarp)}, merge);
}

/// Puts them on a stream of the current device. Throws DeviceError.
void enqueue(CUstream_st* stream, const FillOtherRows& rows);
void enqueue(CUstream_st* stream, const PackLogSumExp& rows);
void enqueue(CUstream_st* stream, const AddPackedRows& rows);
void enqueue(CUstream_st* stream, const MergePackedRows& rows);

}  // namespace annulus
