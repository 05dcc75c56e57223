#include "runtime/ops/embed.h"

#include "tests/cpu/support.h"

namespace annulus::testing {
namespace {

template <class T>
class EmbedTest : public FloatKernelTest<T> {};
TYPED_TEST_SUITE(EmbedTest, FloatTypes);

TYPED_TEST(EmbedTest, LooksUpAndScatters) {
  for (int round = 0; round < 20; ++round) {
    const std::int64_t rows = this->size(100), table_rows = this->size(20), width = this->size(50);
    const std::int64_t offset = this->integer(0, 10);
    Operand ids = this->random_ids({rows}, 0, offset + table_rows + 5);
    Operand table = this->random(this->kType, {table_rows, width}), dy = this->random(this->kType, {rows, width});
    const Numbers from = table.numbers(), weight = dy.numbers();
    Numbers expected(static_cast<std::size_t>(rows * width)), gradient(from.size());
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::int64_t id = ids.tensor().template as<std::int32_t>()[row] - offset;
      for (std::int64_t j = 0; id >= 0 && id < table_rows && j < width; ++j) {
        expected[static_cast<std::size_t>(row * width + j)] = from[static_cast<std::size_t>(id * width + j)];
        gradient[static_cast<std::size_t>(id * width + j)] += weight[static_cast<std::size_t>(row * width + j)];
      }
    }
    EXPECT_EQ(this->run(Embed(offset), {ids, table})[0].numbers(), expected);
    expect_close(this->run(EmbedGrad(offset), {ids, table, dy})[0].numbers(), gradient, this->tolerance(), {},
                 usual_sum(rows));
    Operand sum = this->random(this->kType, {table_rows, width});
    const Numbers before = sum.numbers();
    for (std::size_t i = 0; i < gradient.size(); ++i) gradient[i] += before[i];
    expect_close(this->run(EmbedGrad(offset, EmbedGrad::Target::in_place), {ids, table, dy, sum})[0].numbers(),
                 gradient, this->tolerance(), {}, usual_sum(rows));
  }
}

}  // namespace
}  // namespace annulus::testing
