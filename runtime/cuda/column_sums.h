#pragma once

#include <algorithm>

#include "runtime/cuda/pack.h"
#include "runtime/execute/kernel.h"
#include "runtime/ops/elementwise.h"

namespace annulus {

/// Sums over rows, by parts of the rows whose number depends on the shape alone, and so does the result: first every
/// part, then the parts in their order.
constexpr std::int64_t column_sum_parts(std::int64_t rows) { return std::clamp<std::int64_t>(rows / 64, 1, 128); }

/// One block a part of the rows and kWarp packs of columns; each of its warps takes every so many-th row.
/// `terms.at(row, column, left)` is a pack of an element's terms, of which `left` columns exist. `sums` is
/// [parts, columns].
template <class Terms>
struct ColumnSumBody {
  static constexpr int kPack = Terms::kPack, kColumns = kWarp * kPack;
  using W = typename Terms::Value;
  static constexpr std::int64_t kSharedBytes =
      std::int64_t{kThreads / kWarp} * kColumns * static_cast<std::int64_t>(sizeof(W));

  Terms terms;
  W* sums;
  std::int64_t rows, columns, parts;

  std::int64_t column_blocks() const { return divide_up(columns, kColumns); }

  template <class Block>
  ANNULUS_BODY void operator()(Block& block) const {
    const std::int64_t part = block.index() % parts, first_column = block.index() / parts * kColumns;
    const std::int64_t mine = block.thread() % kWarp * kPack, column = first_column + mine;
    const int warp = block.thread() / kWarp, warps = block.threads() / kWarp;
    auto sum = make_pack<kPack>([](int) { return W(0); });
    if (column < columns) {
      for (std::int64_t row = rows * part / parts + warp; row < rows * (part + 1) / parts; row += warps) {
        const auto values = terms.at(row, column, columns - column);
        ANNULUS_UNROLL
        for (int k = 0; k < kPack; ++k) sum[k] += values[k];
      }
    }
    W* const of_warps = reinterpret_cast<W*>(block.shared());
    store_pack(of_warps + warp * kColumns + mine, sum);
    block.sync();
    for (int i = block.thread(); i < kColumns && first_column + i < columns; i += block.threads()) {
      W total = of_warps[i];
      for (int other = 1; other < warps; ++other) total += of_warps[other * kColumns + i];
      sums[part * columns + first_column + i] = total;
    }
  }
};

/// The terms of a plain sum over the rows of x.
template <class T>
struct ColumnTerms {
  static constexpr int kPack = kPackOf<T>;
  using Value = Wide<T>;
  const T* x;
  std::int64_t columns;
  bool packed;

  ColumnTerms(const T* of, std::int64_t width)
      : x(of), columns(width), packed(width % kPack == 0 && aligned<kPack>(of)) {}
  ANNULUS_BODY Pack<Value, kPack> at(std::int64_t row, std::int64_t column, std::int64_t left) const {
    const T* from = x + row * columns + column;
    return packed ? load_pack<kPack>(from) : load_some<kPack>(from, left);
  }
};

/// The last pass: the sum of `parts` rows.
template <class W, class Launcher>
void column_totals(const Launcher& launcher, const W* partial, std::int64_t parts, std::int64_t columns, W* sums) {
  const ColumnSumBody<ColumnTerms<W>> body{{partial, columns}, sums, parts, columns, 1};
  launcher({body.column_blocks(), body.kSharedBytes}, body);
}

/// sums[column] of `terms`, which are visited once each; `partial` holds one sum a part and column.
template <class Terms, class Launcher>
void column_sums(const Launcher& launcher, const Terms& terms, std::int64_t rows, std::int64_t columns,
                 typename Terms::Value* partial, typename Terms::Value* sums) {
  const std::int64_t parts = column_sum_parts(rows);
  const ColumnSumBody<Terms> of_parts{terms, parts == 1 ? sums : partial, rows, columns, parts};
  launcher({parts * of_parts.column_blocks(), of_parts.kSharedBytes}, of_parts);
  if (parts > 1) column_totals(launcher, partial, parts, columns, sums);
}

inline std::int64_t device_workspace_bytes(const ColumnSum&, OpDefinition::Types inputs, OpDefinition::Types outputs) {
  const Shape& shape = inputs[0].shape;
  return column_sum_parts(shape.rows()) * shape.columns() * size_of(outputs[0].dtype);
}

template <class Launcher>
void launch(const ColumnSum&, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor &x = arguments.inputs[0], &y = arguments.outputs[0];
  dispatch_stored(x.dtype, [&]<class T>(T) {
    column_sums(launcher, ColumnTerms<T>(x.as<T>(), x.shape.columns()), x.shape.rows(), x.shape.columns(),
                reinterpret_cast<Wide<T>*>(arguments.workspace), y.as<Wide<T>>());
  });
}

}  // namespace annulus
