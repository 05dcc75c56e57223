#pragma once

#include <array>
#include <utility>

#include "runtime/core/vector.h"
#include "runtime/cpu/tile_kernels.h"

namespace annulus {

template <class T>
const TileKernels<T>& generic_tile_kernels();
template <class T>
const TileKernels<T>& avx2_tile_kernels();
template <class T>
const TileKernels<T>& avx512_tile_kernels();

/// The tile kernels on vectors of `Bytes` bytes. Included by one source an instruction set, compiled for it: nothing
/// here may call what another source could define as well, compiled for less.
template <class T, int Bytes>
class TileKernelsOf {
 public:
  static constexpr TileKernels<T> table() { return {product, transpose, scale, soften, slope}; }

 private:
  using V = Vector<T, Bytes>;
  static constexpr int kLanes = Bytes / static_cast<int>(sizeof(T));
  static constexpr int kMicroRows = 6;
  static constexpr int kMicroVectors = Bytes == 64 ? 4 : 2;  // 24 of 32 registers hold sums, or 12 of 16

  static V load(const T* from) { return load_as<V>(from); }
  static void store(T* to, V v) { __builtin_memcpy(to, &v, sizeof v); }
  static V broadcast(T x) { return x - V{}; }
  static V larger(V a, V b) { return a > b ? a : b; }
  static std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
  static std::int64_t whole_vectors(std::int64_t count) { return (count + kLanes - 1) / kLanes * kLanes; }

  /// Blocks of Rows x (Vectors * lanes), one below another, whose sums stay in registers.
  template <int Rows, int Vectors>
  static void micro_products(std::int64_t blocks, std::int64_t depth, const LeftTile<T>& left,
                             const TileOf<const T>& right, const TileOf<T>& result, TileUpdate update,
                             const T* starts) {
    for (std::int64_t block = 0; block < blocks; ++block) {
      V sums[Rows][Vectors];
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) {
        const V start = starts == nullptr ? V{} : broadcast(starts[block * Rows + r]);
#pragma GCC unroll 8
        for (int v = 0; v < Vectors; ++v) sums[r][v] = start;
      }
      const T *from = left.data + block * Rows * left.row_stride, *row_of_right = right.data;
#pragma GCC unroll 2
      for (std::int64_t k = 0; k < depth; ++k) {
        V values[Vectors];
#pragma GCC unroll 8
        for (int v = 0; v < Vectors; ++v) values[v] = load(row_of_right + v * kLanes);
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r) {
          const T factor = from[r * left.row_stride];
#pragma GCC unroll 8
          for (int v = 0; v < Vectors; ++v) sums[r][v] += factor * values[v];
        }
        from += left.depth_stride;
        row_of_right += right.row_stride;
      }
      T* to = result.data + block * Rows * result.row_stride;
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r, to += result.row_stride) {
#pragma GCC unroll 8
        for (int v = 0; v < Vectors; ++v)
          store(to + v * kLanes, update == TileUpdate::accumulate ? load(to + v * kLanes) + sums[r][v] : sums[r][v]);
      }
    }
  }

  using MicroProducts = void (*)(std::int64_t, std::int64_t, const LeftTile<T>&, const TileOf<const T>&,
                                 const TileOf<T>&, TileUpdate, const T*);

  /// Micro products of a run-time size: entry i * kMicroVectors + j is of (i + 1) rows, (j + 1) vectors.
  template <int... I>
  static constexpr std::array<MicroProducts, sizeof...(I)> all_micro_products(std::integer_sequence<int, I...>) {
    return {micro_products<I / kMicroVectors + 1, I % kMicroVectors + 1>...};
  }

  static void product(std::int64_t rows, std::int64_t columns, std::int64_t depth, LeftTile<T> left,
                      TileOf<const T> right, TileOf<T> result, TileUpdate update, const T* starts) {
    static constexpr auto kTable = all_micro_products(std::make_integer_sequence<int, kMicroRows * kMicroVectors>{});
    const std::int64_t vectors = whole_vectors(columns) / kLanes, whole_rows = rows / kMicroRows * kMicroRows;
    for (std::int64_t v = 0; v < vectors; v += kMicroVectors) {
      const auto multiply = [&](std::int64_t first, std::int64_t height, std::int64_t blocks) {
        if (blocks * height == 0) return;
        kTable[static_cast<std::size_t>((height - 1) * kMicroVectors + least(kMicroVectors, vectors - v) - 1)](
            blocks, depth, {left.data + first * left.row_stride, left.row_stride, left.depth_stride},
            {right.data + v * kLanes, right.row_stride},
            {result.data + first * result.row_stride + v * kLanes, result.row_stride}, update,
            starts == nullptr ? nullptr : starts + first);
      };
      multiply(0, kMicroRows, whole_rows / kMicroRows);
      multiply(whole_rows, rows - whole_rows, 1);
    }
  }

  /// Lane j of the result is lane index[j] of a, or, from kLanes on, of b.
  template <class Index, int... J>
  static V shuffle(V a, V b, Index index, std::integer_sequence<int, J...>) {
    using Bits = typename ValueTraits<V>::Bits;
    return __builtin_shuffle(a, b, Bits{static_cast<typename ValueTraits<T>::Bits>(index(J))...});
  }
  template <class Index>
  static V shuffle(V a, V b, Index index) {
    return shuffle(a, b, index, std::make_integer_sequence<int, kLanes>{});
  }

  template <int Step = kLanes / 2>
  static T largest_lane(V v) {
    if constexpr (Step == 0) {
      return v[0];
    } else {
      return largest_lane<Step / 2>(larger(v, shuffle(v, v, [](int j) { return j ^ Step; })));
    }
  }

  /// A square of kLanes rows, in registers: blocks of Step x Step are exchanged for ever larger steps.
  template <int Step = 1>
  static void exchange(V (&square)[kLanes]) {
    if constexpr (Step < kLanes) {
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        if ((i & Step) != 0) continue;
        const V a = square[i], b = square[i + Step];
        square[i] = shuffle(a, b, [](int j) { return (j & Step) == 0 ? j : kLanes + j - Step; });
        square[i + Step] = shuffle(a, b, [](int j) { return (j & Step) == 0 ? j + Step : kLanes + j; });
      }
      exchange<2 * Step>(square);
    }
  }

  static void transpose(std::int64_t rows, std::int64_t columns, TileOf<const T> from, TileOf<T> to,
                        std::int64_t padded_rows) {
    const std::int64_t whole_rows = rows / kLanes * kLanes, whole_columns = columns / kLanes * kLanes;
    for (std::int64_t i = 0; i < whole_rows; i += kLanes) {
      for (std::int64_t j = 0; j < whole_columns; j += kLanes) {
        V square[kLanes];
#pragma GCC unroll 16
        for (int r = 0; r < kLanes; ++r) square[r] = load(from.data + (i + r) * from.row_stride + j);
        exchange(square);
#pragma GCC unroll 16
        for (int r = 0; r < kLanes; ++r) store(to.data + (j + r) * to.row_stride + i, square[r]);
      }
    }
    for (std::int64_t j = 0; j < columns; ++j) {
      T* row = to.data + j * to.row_stride;
      for (std::int64_t i = j < whole_columns ? whole_rows : 0; i < rows; ++i)
        row[i] = from.data[i * from.row_stride + j];
      for (std::int64_t i = rows; i < padded_rows; ++i) row[i] = 0;
    }
  }

  /// Rows of tiles often lie far apart in memory, where processors do not foresee them.
  static constexpr std::int64_t kRowsAhead = 12;
  template <int Write>
  static void prefetch_row(const T* row, std::int64_t columns) {
    constexpr std::int64_t kLine = 64 / static_cast<std::int64_t>(sizeof(T));
    for (std::int64_t j = 0; j < columns; j += kLine) __builtin_prefetch(row + j, Write);
  }

  static void scale(std::int64_t rows, std::int64_t columns, T factor, TileOf<const T> from, TileOf<T> to,
                    std::int64_t padded_columns) {
    for (std::int64_t i = 0; i < rows; ++i) {
      const T* source = from.data + i * from.row_stride;
      T* target = to.data + i * to.row_stride;
      if (i + kRowsAhead < rows) {
        prefetch_row<0>(source + kRowsAhead * from.row_stride, columns);
        prefetch_row<1>(target + kRowsAhead * to.row_stride, columns);
      }
      std::int64_t j = 0;
      for (; j + kLanes <= columns; j += kLanes) store(target + j, load(source + j) * factor);
      for (; j < columns; ++j) target[j] = source[j] * factor;
      for (; j < padded_columns; ++j) target[j] = 0;
    }
  }

  /// Sets what a row does not see, up to whole vectors.
  static void hide(T* row, std::int64_t i, std::int64_t columns, const VisibleColumns& visible, T value) {
    for (std::int64_t j = 0; j < visible.begin; ++j) row[j] = value;
    for (std::int64_t j = visible.end(i); j < whole_vectors(columns); ++j) row[j] = value;
  }

  static constexpr T kNothing = -__builtin_huge_val();
  /// Rows whose maximum is looked for together.
  static constexpr std::int64_t kRowsAtOnce = 8;

  /// The largest numbers of a row and of what there is: in several parts, none of which waits for another.
  static constexpr int kParts = 4;
  static void take_largest(const T* row, std::int64_t columns, V (&largest)[kParts]) {
    std::int64_t j = 0;
    for (; j + kParts * kLanes <= columns; j += kParts * kLanes) {
#pragma GCC unroll 4
      for (int part = 0; part < kParts; ++part) largest[part] = larger(load(row + j + part * kLanes), largest[part]);
    }
    for (; j < columns; j += kLanes) largest[0] = larger(load(row + j), largest[0]);
  }
  static T largest_number(const V (&largest)[kParts]) {
    return largest_lane(larger(larger(largest[0], largest[1]), larger(largest[2], largest[3])));
  }

  static void soften(const SoftmaxRows<T>& of) {
    const std::int64_t columns = whole_vectors(of.columns);
    const bool hidden = !of.visible.all_of(columns);
    for (std::int64_t first = 0; first < of.rows; first += kRowsAtOnce) {
      const std::int64_t last = least(of.rows, first + kRowsAtOnce);
      V largest[kParts];
      for (V& part : largest) part = broadcast(kNothing);
      bool fresh = false;
      for (std::int64_t i = first; i < last; ++i) {
        T* row = of.scores.data + i * of.scores.row_stride;
        if (hidden) hide(row, i, of.columns, of.visible, kNothing);
        take_largest(row, columns, largest);
        fresh = fresh || of.limits[i] < kSoftmaxSlack;
      }
      if (fresh || largest_number(largest) > kSoftmaxSlack) {
        for (std::int64_t i = first; i < last; ++i) move_reference(of, i, columns);
      }
      for (std::int64_t i = first; i < last; ++i) exponentiate(of, i, columns);
    }
  }

  static void exponentiate(const SoftmaxRows<T>& of, std::int64_t i, std::int64_t columns) {
    T *row = of.scores.data + i * of.scores.row_stride, *sums = of.sums + i * kSumLanes<T>;
    V sum = load(sums);
    for (std::int64_t j = 0; j < columns; j += kLanes) {
      const V p = power_of_two(load(row + j));
      sum += p;
      store(row + j, p);
    }
    store(sums, sum);
  }

  /// Takes the row's largest score as its reference where that is too far above it, or the row has none.
  static void move_reference(const SoftmaxRows<T>& of, std::int64_t i, std::int64_t columns) {
    T *row = of.scores.data + i * of.scores.row_stride, *sums = of.sums + i * kSumLanes<T>;
    V parts[kParts];
    for (V& part : parts) part = broadcast(kNothing);
    take_largest(row, columns, parts);
    const T largest = largest_number(parts);
    if (!(largest > of.limits[i])) return;
    of.minus_reference[i] -= largest;
    for (std::int64_t j = 0; j < columns; j += kLanes) store(row + j, load(row + j) - largest);
    const bool fresh = of.limits[i] < kSoftmaxSlack;
    of.limits[i] = kSoftmaxSlack;
    if (fresh) return;
    const T factor = power_of_two(broadcast(-largest))[0];
    for (std::int64_t j = 0; j < kSumLanes<T>; ++j) sums[j] *= factor;
    T* output = of.output.data + i * of.output.row_stride;
    for (std::int64_t j = 0; j < of.width; j += kLanes) store(output + j, load(output + j) * factor);
  }

  static void slope(const SlopeRows<T>& of) {
    const std::int64_t columns = whole_vectors(of.columns);
    const bool hidden = !of.visible.all_of(columns);
    for (std::int64_t i = 0; i < of.rows; ++i) {
      T* scores = of.scores.data + i * of.scores.row_stride;
      T* gradients = of.gradients.data + i * of.gradients.row_stride;
      if (hidden) {
        hide(scores, i, of.columns, of.visible, kNothing);
        hide(gradients, i, of.columns, of.visible, T(0));
      }
      for (std::int64_t j = 0; j < columns; j += kLanes) {
        const V p = power_of_two(load(scores + j));
        store(scores + j, p);
        store(gradients + j, load(gradients + j) * p);
      }
    }
  }
};

}  // namespace annulus
