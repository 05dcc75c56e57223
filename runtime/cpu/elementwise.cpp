#include <algorithm>
#include <cstring>

#include "runtime/cpu/kernels.h"
#include "runtime/cpu/parallel.h"
#include "runtime/cpu/vector_loops.h"
#include "runtime/cpu/zero.h"

namespace annulus {
namespace {

/// Elements below which a thread of its own costs more than it saves.
constexpr std::int64_t kGrain = 16384;

std::int64_t rows_of_a_grain(std::int64_t columns) {
  return std::max<std::int64_t>(1, kGrain / std::max<std::int64_t>(1, columns));
}

template <class T>
constexpr auto kSum = [](Vector<T> a, Vector<T> b) { return a + b; };

template <class T>
void add(Stores stores, const T* a, const T* b, T* y, std::int64_t count) {
  parallel_ranges(count, kGrain, [=](std::int64_t begin, std::int64_t end) {
    transform(stores, y + begin, end - begin, kSum<T>, a + begin, b + begin);
  });
}

template <class T>
void add_bias(const T* x, const T* bias, T* y, std::int64_t rows, std::int64_t columns) {
  parallel_ranges(rows, rows_of_a_grain(columns), [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row)
      transform(y + row * columns, columns, kSum<T>, x + row * columns, bias);
  });
}

constexpr std::int64_t kRowsAtOnce = 8;

/// Adds kRowsAtOnce rows of a matrix of `columns` columns to `sum`: their first `width` elements.
template <class T>
void add_rows(const T* x, std::int64_t columns, T* sum, std::int64_t width) {
  const auto added = [](const auto& at) {
    static_assert(kRowsAtOnce == 8);
    return ((at(0) + at(1)) + (at(2) + at(3))) + ((at(4) + at(5)) + (at(6) + at(7)));
  };
  std::int64_t j = 0;
  for (; j + kLanes<T> <= width; j += kLanes<T>) {
    const auto at = [&](std::int64_t row) {
      const T* from = x + row * columns + j;
      __builtin_prefetch(from + kRowsAtOnce * columns);
      return load(from);
    };
    store(sum + j, load(sum + j) + added(at));
  }
  for (; j < width; ++j) sum[j] += added([&](std::int64_t row) { return x[row * columns + j]; });
}

/// Each thread sums its own columns over all rows, so that the order of additions does not depend on the threads.
template <class T>
void column_sum(const T* x, T* y, std::int64_t rows, std::int64_t columns) {
  constexpr std::int64_t kRows = 64;  // summed apart, so that rounding grows with rows / 64
  constexpr std::int64_t kColumns = 1024;
  parallel_ranges(columns, kLanes<T>, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t first = begin; first < end; first += kColumns) {
      const std::int64_t width = std::min(kColumns, end - first);
      T sum[kColumns];
      std::fill_n(y + first, width, T(0));
      for (std::int64_t block = 0; block < rows; block += kRows) {
        std::fill_n(sum, width, T(0));
        const std::int64_t last = std::min(block + kRows, rows);
        std::int64_t row = block;
        for (; row + kRowsAtOnce <= last; row += kRowsAtOnce) add_rows(x + row * columns + first, columns, sum, width);
        for (; row < last; ++row) transform(sum, width, kSum<T>, sum, x + row * columns + first);
        transform(y + first, width, kSum<T>, y + first, sum);
      }
    }
  });
}

}  // namespace

void run(const Add&, const KernelArguments& arguments) {
  const Tensor &a = arguments.inputs[0], &b = arguments.inputs[1], &y = arguments.outputs[0];
  dispatch_float(y.dtype,
                 [&]<class T>(T) { add(stores_for(y.bytes()), a.as<T>(), b.as<T>(), y.as<T>(), y.elements()); });
}

void run(const Accumulate&, const KernelArguments& arguments) {
  const Tensor &sum = arguments.outputs[0], &x = arguments.inputs[1];
  dispatch_float(sum.dtype,
                 [&]<class T>(T) { add(Stores::cached, sum.as<T>(), x.as<T>(), sum.as<T>(), sum.elements()); });
}

void run(const Zero&, const KernelArguments& arguments) {
  const Tensor& y = arguments.outputs[0];
  if (is_half(y.dtype)) return set_to_zero(reinterpret_cast<std::uint16_t*>(y.data), y.elements());
  dispatch_float(y.dtype, [&]<class T>(T) { set_to_zero(y.as<T>(), y.elements()); });
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
