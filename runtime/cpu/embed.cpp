#include <algorithm>

#include "runtime/cpu/kernels.h"
#include "runtime/cpu/parallel.h"
#include "runtime/cpu/zero.h"

namespace annulus {
namespace {

template <class T>
void embed(const std::int32_t* ids, const T* table, T* y, std::int64_t rows, std::int64_t table_rows,
           std::int64_t width, std::int64_t offset) {
  parallel_ranges(rows, 16, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t id = ids[row] - offset;
      T* to = y + row * width;
      if (id >= 0 && id < table_rows) {
        std::copy_n(table + id * width, width, to);
      } else {
        std::fill_n(to, width, T(0));
      }
    }
  });
}

/// Each thread owns columns of the table and goes through all rows in order: the same id may occur many times.
template <class T>
void add_rows(const std::int32_t* ids, const T* dy, T* dtable, std::int64_t rows, std::int64_t table_rows,
              std::int64_t width, std::int64_t offset) {
  parallel_ranges(width, 16, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::int64_t id = ids[row] - offset;
      if (id < 0 || id >= table_rows) continue;
      const T* from = dy + row * width;
      T* to = dtable + id * width;
      transform(
          to + begin, end - begin, [](Vector<T> sum, Vector<T> x) { return sum + x; }, to + begin, from + begin);
    }
  });
}

}  // namespace

void run(const Embed& op, const KernelArguments& arguments) {
  const Tensor &ids = arguments.inputs[0], &table = arguments.inputs[1], &y = arguments.outputs[0];
  dispatch_stored(y.dtype, [&]<class T>(T) {
    embed(ids.as<std::int32_t>(), table.as<T>(), y.as<T>(), ids.elements(), table.shape.rows(), table.shape.columns(),
          op.offset());
  });
}

void run(const EmbedGrad& op, const KernelArguments& arguments) {
  const Tensor &ids = arguments.inputs[0], &dy = arguments.inputs[2], &dtable = arguments.outputs[0];
  dispatch_float(dtable.dtype, [&]<class T>(T) {
    if (op.target() == EmbedGrad::Target::fresh) set_to_zero(dtable.as<T>(), dtable.elements());
    add_rows(ids.as<std::int32_t>(), dy.as<T>(), dtable.as<T>(), ids.elements(), dtable.shape.rows(),
             dtable.shape.columns(), op.offset());
  });
}

}  // namespace annulus
