#include "runtime/core/random.h"
#include "runtime/ops/elementwise.h"
#include "tests/cpu/support.h"

namespace annulus::testing {
namespace {

template <class T>
class DropoutTest : public FloatKernelTest<T> {};
TYPED_TEST_SUITE(DropoutTest, FloatTypes);

TYPED_TEST(DropoutTest, FollowsTheCounters) {
  for (int round = 0; round < 20; ++round) {
    const std::int64_t rows = this->size(30), columns = this->size(300), offset = this->integer(0, 5000);
    const DropoutMask mask{0.1 * static_cast<double>(this->integer(1, 9)), 17, stream_id("somewhere")};
    const std::int64_t step = this->integer(0, 1000);
    Operand x = this->random(this->kType, {rows, columns}), row_ids = this->random_ids({rows, 2}, 0, 100000);
    const Numbers from = x.numbers();
    Numbers expected;
    const PhiloxKey key = stream_key(mask.seed, mask.stream, static_cast<std::uint64_t>(step));
    for (std::int64_t i = 0; i < rows * columns; ++i) {
      const std::int32_t* id = row_ids.tensor().template as<std::int32_t>() + i / columns * 2;
      const auto column = static_cast<std::uint32_t>(offset + i % columns);
      const auto words =
          philox({static_cast<std::uint32_t>(id[0]), static_cast<std::uint32_t>(id[1]), column / 4, 0}, key);
      const bool kept = words[column % 4] >= mask.rate * 0x1p32;
      expected.push_back(kept ? from[static_cast<std::size_t>(i)] / (1 - mask.rate) : 0);
    }
    const Operand step_operand(DType::i32, {1}, {static_cast<double>(step)});
    expect_close(this->run(Dropout(mask, offset), {x, row_ids, step_operand})[0].numbers(), expected,
                 this->tolerance(2));
  }
}

TYPED_TEST(DropoutTest, KeepsTheShareItShould) {
  constexpr std::int64_t kRows = 64, kColumns = 1024;
  const DropoutMask mask{0.3, static_cast<std::uint64_t>(this->integer(0, 1 << 30)), 1};
  const Operand ones(this->kType, {kRows, kColumns}, Numbers(kRows * kColumns, 1.0));
  Numbers ids;
  for (int row = 0; row < kRows; ++row)
    ids.insert(ids.end(), {static_cast<double>(row / 8), static_cast<double>(row % 8)});
  const auto y =
      this->run(Dropout(mask, 0), {ones, Operand(DType::i32, {kRows, 2}, ids), Operand(DType::i32, {1}, {3})})[0]
          .numbers();
  double sum = 0;
  for (double value : y) sum += value;
  const double deviation = std::sqrt(0.3 / 0.7 / (kRows * kColumns));  // of the mean of y
  EXPECT_NEAR(sum / (kRows * kColumns), 1, 6 * deviation);
}

}  // namespace
}  // namespace annulus::testing
