#include "runtime/cpu/tile_kernels.h"

#include <numeric>

#include "tests/cpu/support.h"

namespace annulus::testing {
namespace {

/// The kernels of every instruction set that this processor has.
template <class T>
class TileKernelsTest : public FloatKernelTest<T> {
 protected:
  static std::vector<const TileKernels<T>*> kernels() {
    std::vector<const TileKernels<T>*> all;
    for (const InstructionSet set : {InstructionSet::generic, InstructionSet::avx2, InstructionSet::avx512}) {
      if (set <= best_instruction_set()) all.push_back(&tile_kernels<T>(set));
    }
    return all;
  }
  static TileOf<T> tile(Operand& operand) { return {operand.tensor().template as<T>(), operand.type().shape[1]}; }
  static LeftTile<T> left(Operand& operand) { return {tile(operand).data, tile(operand).row_stride, 1}; }
};
TYPED_TEST_SUITE(TileKernelsTest, FloatTypes);

TYPED_TEST(TileKernelsTest, ProductOfAllSizes) {
  using T = TypeParam;
  for (int round = 0; round < 60; ++round) {
    const std::int64_t rows = this->size(30), columns = this->size(90), depth = this->integer(0, 40);
    const std::int64_t width = padded_columns<T>(columns) + this->integer(0, 3);
    Operand left = this->random(this->kType, {rows, depth}), right = this->random(this->kType, {depth, width});
    Operand result = this->random(this->kType, {rows, width});
    const Numbers a = left.numbers(), b = right.numbers(), before = result.numbers();
    Numbers transposed;
    for (std::int64_t k = 0; k < depth; ++k) {
      for (std::int64_t i = 0; i < rows; ++i) transposed.push_back(a[static_cast<std::size_t>(i * depth + k)]);
    }
    Operand left_transposed(this->kType, {depth, rows}, transposed), starts = this->random(this->kType, {1, rows});
    const Numbers start = starts.numbers();
    for (const TileUpdate update : {TileUpdate::accumulate, TileUpdate::overwrite}) {
      Numbers expected;
      for (std::int64_t i = 0; i < rows; ++i) {
        for (std::int64_t j = 0; j < columns; ++j) {
          double sum = update == TileUpdate::accumulate ? before[static_cast<std::size_t>(i * width + j)]
                                                        : start[static_cast<std::size_t>(i)];
          for (std::int64_t k = 0; k < depth; ++k) {
            sum += a[static_cast<std::size_t>(i * depth + k)] * b[static_cast<std::size_t>(k * width + j)];
          }
          expected.push_back(sum);
        }
      }
      const LeftTile<T> forms[] = {this->left(left), {this->tile(left_transposed).data, 1, rows}};
      for (const TileKernels<T>* kernels : this->kernels()) {
        for (const LeftTile<T>& from : forms) {
          Operand to = result;
          kernels->product(rows, columns, depth, from, {this->tile(right).data, width}, this->tile(to), update,
                           update == TileUpdate::overwrite ? this->tile(starts).data : nullptr);
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
}

TYPED_TEST(TileKernelsTest, TransposeAndScale) {
  using T = TypeParam;
  for (int round = 0; round < 30; ++round) {
    const std::int64_t rows = this->size(70), columns = this->size(70), padded = rows + this->integer(0, 20);
    Operand from = this->random(this->kType, {rows, columns});
    const Numbers numbers = from.numbers();
    Numbers turned(static_cast<std::size_t>(columns * padded)), scaled(static_cast<std::size_t>(rows * (columns + 5)));
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < columns; ++j) {
        const double x = numbers[static_cast<std::size_t>(i * columns + j)];
        turned[static_cast<std::size_t>(j * padded + i)] = x;
        scaled[static_cast<std::size_t>(i * (columns + 5) + j)] = 0.5 * x;
      }
    }
    for (const TileKernels<T>* kernels : this->kernels()) {
      Operand to = this->random(this->kType, {columns, padded}), other = this->random(this->kType, {rows, columns + 5});
      kernels->transpose(rows, columns, {this->tile(from).data, columns}, this->tile(to), padded);
      EXPECT_EQ(to.numbers(), turned);
      kernels->scale(rows, columns, T(0.5), {this->tile(from).data, columns}, this->tile(other), columns + 5);
      EXPECT_EQ(other.numbers(), scaled);
    }
  }
}

/// Tiles of scores of ever larger size, some with columns that are not visible, against sums of powers in double.
TYPED_TEST(TileKernelsTest, SoftenMovesTheReferenceAndKeepsTheSum) {
  using T = TypeParam;
  constexpr std::int64_t kRows = 13, kColumns = 80, kWidth = 16, kTiles = 5;
  for (const TileKernels<T>* kernels : this->kernels()) {
    Operand output(this->kType, {kRows, kWidth}, Numbers(kRows * kWidth, 0)), minus_reference(this->kType, {1, kRows});
    Operand limits(this->kType, {1, kRows}, Numbers(kRows, -HUGE_VAL)), sums(this->kType, {kRows, kSumLanes<T>});
    Numbers all(kRows, 0), weighted(kRows, 0), first(kRows, 0);
    for (std::int64_t tile = 0; tile < kTiles; ++tile) {
      Operand scores = this->random(this->kType, {kRows, kColumns}, 8.0 * static_cast<double>(tile * tile));
      const std::int64_t begin = this->integer(0, 3);
      const VisibleColumns visible{begin, tile == 0 ? begin : this->integer(begin, 70), this->integer(70, kColumns)};
      const Numbers drawn = scores.numbers();
      for (std::int64_t i = 0; i < kRows; ++i) {
        for (std::int64_t j = visible.begin; j < visible.end(i); ++j)
          all[static_cast<std::size_t>(i)] += std::exp2(drawn[static_cast<std::size_t>(i * kColumns + j)]);
        for (std::int64_t j = 0; j < kColumns; ++j)  // as a product would begin
          this->tile(scores).data[i * kColumns + j] += this->tile(minus_reference).data[i];
      }
      kernels->soften({kRows, kColumns, visible, this->tile(scores), this->tile(minus_reference).data,
                       this->tile(limits).data, this->tile(sums).data, this->tile(output), kWidth});
      for (std::int64_t i = 0; i < kRows; ++i) {
        for (std::int64_t j = 0; j < kColumns; ++j) {
          const T p = this->tile(scores).data[i * kColumns + j];
          if (j < visible.begin || j >= visible.end(i)) {
            EXPECT_EQ(p, 0);
          }
          this->tile(output).data[i * kWidth + j % kWidth] += p;
        }
      }
    }
    for (std::int64_t i = 0; i < kRows; ++i) {
      const T *parts = this->tile(sums).data + i * kSumLanes<T>, *of_output = this->tile(output).data + i * kWidth;
      const double reference = -static_cast<double>(this->tile(minus_reference).data[i]);
      const double sum = std::accumulate(parts, parts + kSumLanes<T>, 0.0);
      EXPECT_NEAR(std::log2(sum) + reference, std::log2(all[static_cast<std::size_t>(i)]), this->tolerance(1000));
      EXPECT_NEAR(std::accumulate(of_output, of_output + kWidth, 0.0) / sum, 1, this->tolerance(100));
    }
  }
}

TYPED_TEST(TileKernelsTest, Slope) {
  using T = TypeParam;
  for (int round = 0; round < 20; ++round) {
    const std::int64_t rows = this->size(20), columns = this->size(90), width = padded_columns<T>(columns);
    const Operand scores = this->random(this->kType, {rows, width}, 3),
                  gradients = this->random(this->kType, {rows, width});
    const std::int64_t begin = this->integer(0, columns - 1);
    const VisibleColumns visible{begin, this->integer(begin, columns), this->integer(begin, columns)};
    for (const TileKernels<T>* kernels : this->kernels()) {
      Operand p = scores, slopes = gradients;
      const Numbers drawn = p.numbers(), given = slopes.numbers();
      kernels->slope({rows, columns, visible, this->tile(p), this->tile(slopes)});
      Numbers expected_p = p.numbers(), expected_slopes = slopes.numbers();
      for (std::int64_t i = 0; i < rows; ++i) {
        for (std::int64_t j = 0; j < columns; ++j) {
          const auto at = static_cast<std::size_t>(i * width + j);
          const bool seen = j >= visible.begin && j < visible.end(i);
          expected_p[at] = seen ? std::exp2(drawn[at]) : 0;
          expected_slopes[at] = expected_p[at] * given[at];
        }
      }
      expect_close(p.numbers(), expected_p, this->tolerance(), "probabilities");
      expect_close(slopes.numbers(), expected_slopes, this->tolerance(), "slopes");
    }
  }
}

}  // namespace
}  // namespace annulus::testing
