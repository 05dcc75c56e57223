#include "runtime/cpu/keep_mask.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/parallel.h"
#include "runtime/cpu/vector_loops.h"

namespace annulus {

void run(const Dropout& op, const KernelArguments& arguments) {
  const Tensor &x = arguments.inputs[0], &y = arguments.outputs[0];
  const std::int32_t* row_ids = arguments.inputs[1].as<std::int32_t>();
  const std::int32_t step = arguments.inputs[2].as<std::int32_t>()[0];
  const DropoutRule rule{stream_key(op.mask().seed, op.mask().stream, static_cast<std::uint64_t>(step)),
                         op.mask().rate};
  const std::int64_t rows = x.shape.rows(), columns = x.shape.columns();
  dispatch_float(y.dtype, [&]<class T>(T) {
    parallel_ranges(rows, 1, [&](std::int64_t begin, std::int64_t end) {
      constexpr std::int64_t kChunk = 1024;
      T factors[kChunk];
      for (std::int64_t row = begin; row < end; ++row) {
        const PhiloxCounter counter{static_cast<std::uint32_t>(row_ids[2 * row]),
                                    static_cast<std::uint32_t>(row_ids[2 * row + 1]), 0, 0};
        for (std::int64_t first = 0; first < columns; first += kChunk) {
          const std::int64_t size = std::min(kChunk, columns - first);
          keep_factors(rule, counter, 2, static_cast<std::uint32_t>(op.column_offset() + first), 1, size, factors);
          const T* from = x.as<T>() + row * columns + first;
          T* to = y.as<T>() + row * columns + first;
          transform(
              to, size, [](Vector<T> a, Vector<T> b) { return a * b; }, from, factors);
        }
      }
    });
  });
}

}  // namespace annulus
