#include <cstring>

#include "runtime/cpu/kernels.h"
#include "runtime/cpu/parallel.h"

namespace annulus {
namespace {

/// Elements below which a thread of its own costs more than it saves.
constexpr std::int64_t kGrain = 16384;

std::int64_t rows_of_a_grain(std::int64_t columns) {
  return std::max<std::int64_t>(1, kGrain / std::max<std::int64_t>(1, columns));
}

template <class T>
void add(const T* a, const T* b, T* y, std::int64_t count) {
  parallel_ranges(count, kGrain, [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) y[i] = a[i] + b[i];
  });
}

template <class T>
void add_bias(const T* x, const T* bias, T* y, std::int64_t rows, std::int64_t columns) {
  parallel_ranges(rows, rows_of_a_grain(columns), [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const T* from = x + row * columns;
      T* to = y + row * columns;
#pragma omp simd
      for (std::int64_t j = 0; j < columns; ++j) to[j] = from[j] + bias[j];
    }
  });
}

/// Each thread sums its own columns over all rows, so that the order of additions does not depend on the threads.
template <class T>
void column_sum(const T* x, T* y, std::int64_t rows, std::int64_t columns) {
  constexpr std::int64_t kRows = 64;  // summed apart, so that rounding grows with rows / 64
  constexpr std::int64_t kColumns = 64;
  parallel_ranges(columns, kColumns, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t first = begin; first < end; first += kColumns) {
      const std::int64_t width = std::min(kColumns, end - first);
      T total[kColumns] = {};
      for (std::int64_t block = 0; block < rows; block += kRows) {
        T sum[kColumns] = {};
        const std::int64_t last = std::min(block + kRows, rows);
        for (std::int64_t row = block; row < last; ++row) {
          const T* from = x + row * columns + first;
#pragma omp simd
          for (std::int64_t j = 0; j < width; ++j) sum[j] += from[j];
        }
#pragma omp simd
        for (std::int64_t j = 0; j < kColumns; ++j) total[j] += sum[j];
      }
      std::copy(total, total + width, y + first);
    }
  });
}

}  // namespace

void run(const Add&, const KernelArguments& arguments) {
  const Tensor &a = arguments.inputs[0], &b = arguments.inputs[1], &y = arguments.outputs[0];
  dispatch_float(y.dtype, [&]<class T>(T) { add(a.as<T>(), b.as<T>(), y.as<T>(), y.elements()); });
}

void run(const Accumulate&, const KernelArguments& arguments) {
  const Tensor &sum = arguments.outputs[0], &x = arguments.inputs[1];
  dispatch_float(sum.dtype, [&]<class T>(T) { add(sum.as<T>(), x.as<T>(), sum.as<T>(), sum.elements()); });
}

void run(const Zero&, const KernelArguments& arguments) {
  const Tensor& y = arguments.outputs[0];
  parallel_ranges(y.bytes(), 4 * kGrain, [&](std::int64_t begin, std::int64_t end) {
    std::memset(y.data + begin, 0, static_cast<std::size_t>(end - begin));
  });
}

void run(const AddBias&, const KernelArguments& arguments) {
  const Tensor &x = arguments.inputs[0], &bias = arguments.inputs[1], &y = arguments.outputs[0];
  dispatch_float(y.dtype,
                 [&]<class T>(T) { add_bias(x.as<T>(), bias.as<T>(), y.as<T>(), x.shape.rows(), x.shape.columns()); });
}

void run(const ColumnSum&, const KernelArguments& arguments) {
  const Tensor &x = arguments.inputs[0], &y = arguments.outputs[0];
  dispatch_float(y.dtype, [&]<class T>(T) { column_sum(x.as<T>(), y.as<T>(), x.shape.rows(), x.shape.columns()); });
}

void run(const Slice& op, const KernelArguments& arguments) {
  const Tensor &x = arguments.inputs[0], &y = arguments.outputs[0];
  const std::int64_t outer = x.shape.elements(0, op.dim()), inner = x.shape.elements(op.dim(), x.shape.rank());
  const std::int64_t from_bytes = inner * size_of(x.dtype), part_bytes = from_bytes / op.parts();
  parallel_ranges(outer, rows_of_a_grain(part_bytes / 4), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      std::memcpy(y.data + i * part_bytes, x.data + i * from_bytes + op.index() * part_bytes,
                  static_cast<std::size_t>(part_bytes));
    }
  });
}

}  // namespace annulus
