#pragma once

#include <cstdint>

namespace annulus {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif
/// Elements of T in a vector register. Rows of tiles are padded to a multiple of it.
template <class T>
inline constexpr std::int64_t kVectorLanes = kVectorBytes / static_cast<std::int64_t>(sizeof(T));

template <class T>
constexpr std::int64_t padded_to_vector(std::int64_t count) {
  return (count + kVectorLanes<T> - 1) / kVectorLanes<T> * kVectorLanes<T>;
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

/// result[rows, columns] = (or +=) left[rows, depth] right[depth, columns]. `columns` is rounded up to whole vectors,
/// which must be there to read and to write. Any sizes; meant for tiles that stay in cache. For float and double.
template <class T>
void tile_product(std::int64_t rows, std::int64_t columns, std::int64_t depth, LeftTile<T> left, TileOf<const T> right,
                  TileOf<T> result, TileUpdate update);

}  // namespace annulus
