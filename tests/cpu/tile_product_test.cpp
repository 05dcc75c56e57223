#include "runtime/cpu/tile_product.h"

#include "tests/cpu/support.h"

namespace annulus::testing {
namespace {

template <class T>
class TileProductTest : public FloatKernelTest<T> {};
TYPED_TEST_SUITE(TileProductTest, FloatTypes);

TYPED_TEST(TileProductTest, AllSizes) {
  using T = TypeParam;
  for (int round = 0; round < 60; ++round) {
    const std::int64_t rows = this->size(30), columns = this->size(90), depth = this->integer(0, 40);
    const std::int64_t width = padded_to_vector<T>(columns) + this->integer(0, 3);
    Operand left = this->random(this->kType, {rows, depth}), right = this->random(this->kType, {depth, width});
    Operand result = this->random(this->kType, {rows, width});
    const Numbers a = left.numbers(), b = right.numbers(), before = result.numbers();
    Numbers transposed;
    for (std::int64_t k = 0; k < depth; ++k) {
      for (std::int64_t i = 0; i < rows; ++i) transposed.push_back(a[static_cast<std::size_t>(i * depth + k)]);
    }
    Operand left_transposed(this->kType, {depth, rows}, transposed);
    for (const TileUpdate update : {TileUpdate::accumulate, TileUpdate::overwrite}) {
      Numbers expected;
      for (std::int64_t i = 0; i < rows; ++i) {
        for (std::int64_t j = 0; j < columns; ++j) {
          double sum = update == TileUpdate::accumulate ? before[static_cast<std::size_t>(i * width + j)] : 0;
          for (std::int64_t k = 0; k < depth; ++k) {
            sum += a[static_cast<std::size_t>(i * depth + k)] * b[static_cast<std::size_t>(k * width + j)];
          }
          expected.push_back(sum);
        }
      }
      for (const LeftTile<T> from : {LeftTile<T>{left.tensor().template as<T>(), depth, 1},
                                     LeftTile<T>{left_transposed.tensor().template as<T>(), 1, rows}}) {
        Operand to = result;
        tile_product<T>(rows, columns, depth, from, {right.tensor().template as<T>(), width},
                        {to.tensor().template as<T>(), width}, update);
        Numbers actual;
        const Numbers written = to.numbers();
        for (std::int64_t i = 0; i < rows; ++i) {
          actual.insert(actual.end(), written.begin() + i * width, written.begin() + i * width + columns);
        }
        expect_close(actual, expected, this->tolerance(), {}, 1);
      }
    }
  }
}

}  // namespace
}  // namespace annulus::testing
