#pragma once

#include <cstdint>

namespace annulus {

/// Bytes of the widest vector of any instruction set. Rows of tiles are padded to a multiple of it.
inline constexpr std::int64_t kTileRowBytes = 64;

template <class T>
constexpr std::int64_t padded_columns(std::int64_t count) {
  constexpr std::int64_t kWidest = kTileRowBytes / static_cast<std::int64_t>(sizeof(T));
  return (count + kWidest - 1) / kWidest * kWidest;
}

/// The left operand of a tile product, element (row, depth) at row * row_stride + depth * depth_stride: a transposed
/// matrix is one with its strides exchanged.
template <class T>
struct LeftTile {
  const T* data;
  std::int64_t row_stride, depth_stride;
};

/// A row-major tile.
template <class T>
struct TileOf {
  T* data;
  std::int64_t row_stride;
};

enum class TileUpdate { overwrite, accumulate };

/// Which columns of a tile of scores its rows see: row i those of [begin, end(i)).
struct VisibleColumns {
  std::int64_t begin = 0, first_end = 0, last_end = 0;

  std::int64_t end(std::int64_t row) const { return first_end + row < last_end ? first_end + row : last_end; }
  bool all_of(std::int64_t columns) const { return begin == 0 && first_end >= columns && last_end >= columns; }
};

/// Rows of scores whose softmax is in the making: scores in units of ln 2, less the row's reference. What the row has
/// seen so far is worth sum 2^(score - reference), kept as kSumLanes<T> parts, and has the output that goes with it.
template <class T>
struct SoftmaxRows {
  std::int64_t rows, columns;
  VisibleColumns visible;
  TileOf<T> scores;                    ///< become 2^score, 0 in columns that are not visible, up to whole vectors
  T *minus_reference, *limits, *sums;  ///< a row's limit: kSoftmaxSlack, or -infinity where it has no reference yet
  TileOf<T> output;
  std::int64_t width;  ///< of output, padded
};
template <class T>
inline constexpr std::int64_t kSumLanes = kTileRowBytes / static_cast<std::int64_t>(sizeof(T));
/// How far above its reference a score may be: 2^16 is far from overflowing.
inline constexpr int kSoftmaxSlack = 16;

/// Rows of scores, less the row's log-sum-exp, in units of ln 2; and of the gradients of their probabilities, less the
/// row's delta. The first become probabilities p, the second p * gradient; 0 in columns that are not visible.
template <class T>
struct SlopeRows {
  std::int64_t rows, columns;
  VisibleColumns visible;
  TileOf<T> scores, gradients;
};

/// What processors differ in.
enum class InstructionSet { generic, avx2, avx512 };
InstructionSet best_instruction_set();

/// Loops over tiles that stay in cache, compiled for one instruction set. T is float or double.
template <class T>
struct TileKernels {
  /// result[rows, columns] = (or +=) left[rows, depth] right[depth, columns], plus starts[row] where that is given
  /// (with overwrite only). `columns` is rounded up to whole vectors, which must be there to read and to write. Any
  /// sizes.
  void (*product)(std::int64_t rows, std::int64_t columns, std::int64_t depth, LeftTile<T> left, TileOf<const T> right,
                  TileOf<T> result, TileUpdate update, const T* starts);
  /// to[columns, rows] = from[rows, columns]; columns of `to` from `rows` to `padded_rows` become 0.
  void (*transpose)(std::int64_t rows, std::int64_t columns, TileOf<const T> from, TileOf<T> to,
                    std::int64_t padded_rows);
  /// to[rows, columns] = from * factor; columns of `to` up to `padded_columns` become 0.
  void (*scale)(std::int64_t rows, std::int64_t columns, T factor, TileOf<const T> from, TileOf<T> to,
                std::int64_t padded_columns);
  /// Adds the rows' scores to what they have seen; moves references, with what goes with them, where they must be.
  void (*soften)(const SoftmaxRows<T>& of);
  void (*slope)(const SlopeRows<T>& of);
};

template <class T>
const TileKernels<T>& tile_kernels(InstructionSet set = best_instruction_set());

}  // namespace annulus
