#pragma once

#include <algorithm>

#include "runtime/cuda/block.h"
#include "runtime/execute/kernel.h"
#include "runtime/ops/elementwise.h"

namespace annulus {

/// Sums over rows, by parts of the rows whose number depends on the shape alone, and so does the result: first every
/// part, then the parts in their order. `Terms::values(row, column, sums)` adds an element's kSums terms to `sums`.
constexpr std::int64_t column_sum_parts(std::int64_t rows) { return std::clamp<std::int64_t>(rows / 32, 1, 64); }

/// One thread a part and column. `partial` is [parts, kSums, columns].
template <class T, class Terms>
struct ColumnPartElement {
  Terms terms;
  T* partial;
  std::int64_t rows, columns, parts;

  ANNULUS_BODY void operator()(std::int64_t i) const {
    const std::int64_t part = i / columns, column = i % columns;
    T sums[Terms::kSums] = {};
    for (std::int64_t row = rows * part / parts; row < rows * (part + 1) / parts; ++row) {
      terms.add(row, column, sums);
    }
    for (int k = 0; k < Terms::kSums; ++k) partial[(part * Terms::kSums + k) * columns + column] = sums[k];
  }
};

/// One thread a sum and column.
template <class T, int kSums>
struct ColumnTotalElement {
  const T* partial;
  T* totals[kSums];
  std::int64_t columns, parts;

  ANNULUS_BODY void operator()(std::int64_t i) const {
    T total = 0;
    for (std::int64_t part = 0; part < parts; ++part) total += partial[part * kSums * columns + i];
    for (int k = 0; k < kSums; ++k) {
      if (i / columns == k) totals[k][i % columns] = total;
    }
  }
};

template <class T, class Terms, class Launcher>
void column_sums(const Launcher& launcher, const Terms& terms, std::int64_t rows, std::int64_t columns,
                 const KernelArguments& arguments, ColumnTotalElement<T, Terms::kSums> totals) {
  const std::int64_t parts = column_sum_parts(rows);
  T* partial = reinterpret_cast<T*>(arguments.workspace);
  totals.partial = partial;
  totals.columns = columns;
  totals.parts = parts;
  for_each(launcher, parts * columns, ColumnPartElement<T, Terms>{terms, partial, rows, columns, parts});
  for_each(launcher, Terms::kSums * columns, totals);
}

template <class T>
struct ColumnTerms {
  static constexpr int kSums = 1;
  const T* x;
  std::int64_t columns;
  ANNULUS_BODY void add(std::int64_t row, std::int64_t column, T* sums) const { sums[0] += x[row * columns + column]; }
};

inline std::int64_t device_workspace_bytes(const ColumnSum&, OpDefinition::Types inputs, OpDefinition::Types) {
  const Shape& shape = inputs[0].shape;
  return column_sum_parts(shape.rows()) * shape.columns() * size_of(inputs[0].dtype);
}

template <class Launcher>
void launch(const ColumnSum&, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor &x = arguments.inputs[0], &y = arguments.outputs[0];
  dispatch_float(y.dtype, [&]<class T>(T) {
    column_sums<T>(launcher, ColumnTerms<T>{x.as<T>(), x.shape.columns()}, x.shape.rows(), x.shape.columns(), arguments,
                   {nullptr, {y.as<T>()}, 0, 0});
  });
}

}  // namespace annulus
