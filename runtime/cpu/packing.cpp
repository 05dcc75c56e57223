#include "runtime/cpu/packing.h"

#include <algorithm>

#include "runtime/cpu/parallel.h"
#include "runtime/cpu/vector_loops.h"

namespace annulus {
namespace {

void pack_row(const float* from, std::int64_t count, std::int64_t block, float* to) {
  std::int64_t i = 0;
  for (; i + kLanes<float> <= count; i += kLanes<float>) {
    prefetch_ahead(from + i);
    store(to + i, load(from + i));
  }
  if (i < count) std::copy_n(from + i, count - i, to + i);
  std::fill(to + count, to + block, 0.0f);
}

}  // namespace

void pack_columns(const float* from, std::int64_t depth, std::int64_t columns, std::int64_t stride, std::int64_t block,
                  float* to) {
  const std::int64_t panels = (depth + kPackedDepth - 1) / kPackedDepth;
  parallel_ranges(panels, 1, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t panel = begin; panel < end; ++panel) {
      for (std::int64_t column = 0; column < columns; column += block) {
        float* target = to + (column * panels + panel * block) * kPackedDepth;
        const std::int64_t first = panel * kPackedDepth, width = std::min(block, columns - column);
        for (std::int64_t row = first; row < first + kPackedDepth; ++row, target += block)
          pack_row(from + std::min(row, depth - 1) * stride + column, row < depth ? width : 0, block, target);
      }
    }
  });
}

}  // namespace annulus
