#include "runtime/cpu/tile_product.h"

#include <algorithm>
#include <array>
#include <utility>

namespace annulus {
namespace {

#if defined(__AVX512F__)
constexpr int kMicroVectors = 4;  // 6 x 4 of 32 registers hold sums, 4 a row of the right operand
#else
constexpr int kMicroVectors = 2;  // 6 x 2 of 16
#endif
constexpr int kMicroRows = 6;

template <class T>
struct Vector {
  typedef T Type __attribute__((vector_size(kVectorBytes), aligned(alignof(T)), may_alias));
};

/// A block of Rows x (Vectors * lanes) whose sums stay in registers.
template <class T, int Rows, int Vectors>
void micro_product(std::int64_t depth, LeftTile<T> left, TileOf<const T> right, TileOf<T> result, TileUpdate update) {
  using V = typename Vector<T>::Type;
  constexpr std::int64_t kLanes = kVectorLanes<T>;
  V sums[Rows][Vectors] = {};
  const T *from = left.data, *row_of_right = right.data;
  for (std::int64_t k = 0; k < depth; ++k) {
    V values[Vectors];
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) values[v] = *reinterpret_cast<const V*>(row_of_right + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const T factor = from[r * left.row_stride];
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) sums[r][v] += factor * values[v];
    }
    from += left.depth_stride;
    row_of_right += right.row_stride;
  }
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) {
      V* to = reinterpret_cast<V*>(result.data + r * result.row_stride + v * kLanes);
      *to = update == TileUpdate::accumulate ? *to + sums[r][v] : sums[r][v];
    }
  }
}

template <class T>
using MicroProduct = void (*)(std::int64_t, LeftTile<T>, TileOf<const T>, TileOf<T>, TileUpdate);

/// The micro product of a run-time size: row i * kMicroVectors + j of the table is of (i + 1) rows, (j + 1) vectors.
template <class T>
MicroProduct<T> micro_product_of(std::int64_t rows, std::int64_t vectors) {
  static constexpr auto kTable = []<int... I>(std::integer_sequence<int, I...>) {
    return std::array<MicroProduct<T>, sizeof...(I)>{micro_product<T, I / kMicroVectors + 1, I % kMicroVectors + 1>...};
  }
  (std::make_integer_sequence<int, kMicroRows * kMicroVectors>{});
  return kTable[static_cast<std::size_t>((rows - 1) * kMicroVectors + vectors - 1)];
}

}  // namespace

template <class T>
void tile_product(std::int64_t rows, std::int64_t columns, std::int64_t depth, LeftTile<T> left, TileOf<const T> right,
                  TileOf<T> result, TileUpdate update) {
  constexpr std::int64_t kLanes = kVectorLanes<T>;
  const std::int64_t vectors = padded_to_vector<T>(columns) / kLanes;
  for (std::int64_t v = 0; v < vectors; v += kMicroVectors) {
    const std::int64_t width = std::min<std::int64_t>(kMicroVectors, vectors - v);
    for (std::int64_t r = 0; r < rows; r += kMicroRows) {
      const std::int64_t height = std::min<std::int64_t>(kMicroRows, rows - r);
      micro_product_of<T>(height, width)(depth, {left.data + r * left.row_stride, left.row_stride, left.depth_stride},
                                         {right.data + v * kLanes, right.row_stride},
                                         {result.data + r * result.row_stride + v * kLanes, result.row_stride}, update);
    }
  }
}

template void tile_product<float>(std::int64_t, std::int64_t, std::int64_t, LeftTile<float>, TileOf<const float>,
                                  TileOf<float>, TileUpdate);
template void tile_product<double>(std::int64_t, std::int64_t, std::int64_t, LeftTile<double>, TileOf<const double>,
                                   TileOf<double>, TileUpdate);

}  // namespace annulus
