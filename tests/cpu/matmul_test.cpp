#include "runtime/ops/matmul.h"

#include "tests/cpu/support.h"

namespace annulus::testing {
namespace {

template <class T>
class MatmulTest : public FloatKernelTest<T> {
 protected:
  void check(Matmul::Form form, std::int64_t m, std::int64_t n, std::int64_t k) {
    const bool left_transposed = form == Matmul::Form::tn, right_transposed = form == Matmul::Form::nt;
    Operand a = this->random(this->kType, left_transposed ? Shape{k, m} : Shape{m, k});
    Operand b = this->random(this->kType, right_transposed ? Shape{n, k} : Shape{k, n});
    const Numbers left = a.numbers(), right = b.numbers();
    Numbers expected(static_cast<std::size_t>(m * n));
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t p = 0; p < k; ++p) {
        const double factor = left[static_cast<std::size_t>(left_transposed ? p * m + i : i * k + p)];
        for (std::int64_t j = 0; j < n; ++j) {
          expected[static_cast<std::size_t>(i * n + j)] +=
              factor * right[static_cast<std::size_t>(right_transposed ? j * k + p : p * n + j)];
        }
      }
    }
    std::vector<Operand> first = this->run(Matmul(form), {a, b});
    expect_close(first[0].numbers(), expected, this->tolerance(), Matmul(form).attributes(), usual_sum(k));
    EXPECT_EQ(this->counters_.product_flops, 2.0 * static_cast<double>(m * n * k));
    EXPECT_EQ(this->run(Matmul(form), {a, b})[0].bytes(), first[0].bytes()) << "not reproducible";
  }
};
TYPED_TEST_SUITE(MatmulTest, FloatTypes);

TYPED_TEST(MatmulTest, AllForms) {
  for (const Matmul::Form form : {Matmul::Form::nn, Matmul::Form::nt, Matmul::Form::tn}) {
    for (int round = 0; round < 8; ++round) this->check(form, this->size(70), this->size(70), this->size(70));
    this->check(form, 1, 1, 1);
    this->check(form, 64, 192, 64);
    this->check(form, 64 + this->size(50), this->size(150), this->size(150));  // rows enough to pack
    this->check(form, 101, 131, 523);                                          // several blocks each way
  }
}

TYPED_TEST(MatmulTest, EmptyDepthGivesZero) {
  for (const Matmul::Form form : {Matmul::Form::nn, Matmul::Form::nt, Matmul::Form::tn}) this->check(form, 3, 5, 0);
}

TYPED_TEST(MatmulTest, DimsBehindTheFirstAreOne) {
  Operand a = this->random(this->kType, {5, 2, 3}), b = this->random(this->kType, {4, 2, 3});
  Operand flat_a(this->kType, {5, 6}, a.numbers()), flat_b(this->kType, {4, 6}, b.numbers());
  EXPECT_EQ(this->run(Matmul(Matmul::Form::nt), {a, b})[0].numbers(),
            this->run(Matmul(Matmul::Form::nt), {flat_a, flat_b})[0].numbers());
}

}  // namespace
}  // namespace annulus::testing
