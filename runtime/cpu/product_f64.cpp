#include "runtime/cpu/product_f64.h"

#include <algorithm>

#include "runtime/cpu/parallel.h"
#include "runtime/cpu/tile_kernels.h"

namespace annulus {
namespace {

// A thread's panel of the right operand and its tile of the result stay in its second-level cache.
constexpr std::int64_t kRows = 96, kColumns = 64, kDepth = 256;
constexpr std::int64_t kPanel = kDepth * kColumns, kTile = kRows * kColumns;
static_assert(kColumns == padded_columns<double>(kColumns));

/// panel[depth, kColumns] = op(b)[first_depth.., first_column..], zero behind the last column.
void pack(bool transposed, const Matmul::Sizes& sizes, const double* b, std::int64_t first_depth, std::int64_t depth,
          std::int64_t first_column, std::int64_t columns, double* panel) {
  for (std::int64_t p = 0; p < depth; ++p) {
    double* to = panel + p * kColumns;
    for (std::int64_t j = 0; j < columns; ++j)
      to[j] = transposed ? b[(first_column + j) * sizes.k + first_depth + p]
                         : b[(first_depth + p) * sizes.n + first_column + j];
    std::fill(to + columns, to + kColumns, 0.0);
  }
}

}  // namespace

std::int64_t product_f64_workspace_bytes() {
  return thread_count() * (kPanel + kTile) * static_cast<std::int64_t>(sizeof(double));
}

void product_f64(Matmul::Form form, const Matmul::Sizes& sizes, const double* a, const double* b, double* c,
                 const Added<double>& added, std::byte* workspace) {
  const std::int64_t column_blocks = (sizes.n + kColumns - 1) / kColumns, row_blocks = (sizes.m + kRows - 1) / kRows;
  const std::int64_t row_stride = form == Matmul::Form::tn ? 1 : sizes.k,
                     depth_stride = form == Matmul::Form::tn ? sizes.m : 1;
  const auto product = tile_kernels<double>().product;
  parallel_tasks(row_blocks * column_blocks, [&](std::int64_t task, int thread) {
    double* panel = reinterpret_cast<double*>(workspace) + thread * (kPanel + kTile);
    double* tile = panel + kPanel;
    const std::int64_t row = task / column_blocks * kRows, rows = std::min(kRows, sizes.m - row);
    const std::int64_t column = task % column_blocks * kColumns, columns = std::min(kColumns, sizes.n - column);
    for (std::int64_t from = 0; from < sizes.k; from += kDepth) {
      const std::int64_t depth = std::min(kDepth, sizes.k - from);
      pack(form == Matmul::Form::nt, sizes, b, from, depth, column, columns, panel);
      product(rows, columns, depth, {a + row * row_stride + from * depth_stride, row_stride, depth_stride},
              {panel, kColumns}, {tile, kColumns}, from == 0 ? TileUpdate::overwrite : TileUpdate::accumulate, nullptr);
    }
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t at = (row + i) * sizes.n + column;
      for (std::int64_t j = 0; j < columns; ++j) {
        const double sum = tile[i * kColumns + j] + (added.bias ? added.bias[column + j] : 0);
        c[at + j] = sum + (added.addend ? added.addend[at + j] : 0);
      }
    }
  });
}

}  // namespace annulus
