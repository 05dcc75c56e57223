#include "runtime/cpu/packing.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace annulus {
namespace {

TEST(Packing, PutsEveryNumberWhereItsBlockHasIt) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> draw(1, 2);
  const auto integer = [&](int low, int high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(engine);
  };
  for (int round = 0; round < 50; ++round) {
    const std::int64_t depth = integer(1, 70), columns = integer(1, 200), stride = columns + integer(0, 9);
    const std::int64_t block = 16 * integer(1, 4),
                       padded_depth = (depth + kPackedDepth - 1) / kPackedDepth * kPackedDepth;
    const std::int64_t padded_columns = (columns + block - 1) / block * block;
    std::vector<float> from(static_cast<std::size_t>(depth * stride));
    for (float& number : from) number = draw(engine);
    std::vector<float> packed(static_cast<std::size_t>(padded_depth * padded_columns), -1.0f);
    pack_columns(from.data(), depth, columns, stride, block, packed.data());
    for (std::int64_t row = 0; row < padded_depth; ++row) {
      for (std::int64_t column = 0; column < padded_columns; ++column) {
        const std::int64_t at = (column / block * padded_depth + row) * block + column % block;
        const bool inside = row < depth && column < columns;
        const float expected = inside ? from[static_cast<std::size_t>(row * stride + column)] : 0.0f;
        ASSERT_EQ(packed[static_cast<std::size_t>(at)], expected)
            << depth << " x " << columns << ", " << row << ", " << column;
      }
    }
  }
}

}  // namespace
}  // namespace annulus
