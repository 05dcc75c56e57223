#include "runtime/ops/matmul.h"

#include "tests/cpu/support.h"

namespace annulus::testing {
namespace {

template <class T>
class MatmulTest : public FloatKernelTest<T> {
 protected:
  void check(const Matmul& op, std::int64_t m, std::int64_t n, std::int64_t k) {
    const Matmul::Form form = op.form();
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
    std::vector<Operand> inputs{a, b};
    if (op.bias() != Matmul::Bias::none) {
      inputs.push_back(this->random(this->kType, {n}));
      const Numbers bias = inputs.back().numbers();
      for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += bias[i % static_cast<std::size_t>(n)];
    }
    if (op.addend() != Matmul::Addend::none) {
      inputs.push_back(this->random(this->kType, {m, n}));
      const Numbers addend = inputs.back().numbers();
      for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += addend[i];
    }
    std::vector<Operand> unfinished = this->run(Matmul(form, {op.bias(), op.addend()}), inputs);
    expect_close(unfinished[0].numbers(), expected, this->tolerance(), op.attributes(), usual_sum(k));
    if (op.finish() == Matmul::Finish::gelu_slope) inputs.push_back(this->random(this->kType, {m, n}));
    std::vector<Operand> first = this->run(op, inputs);
    EXPECT_EQ(this->counters_.product_flops, 2.0 * static_cast<double>(m * n * k));
    if (op.unfinished_output() > 0) {
      EXPECT_EQ(first[1].bytes(), unfinished[0].bytes());
    }
    check_finish(op, unfinished[0], inputs, first[0]);
    EXPECT_EQ(this->run(op, inputs)[0].bytes(), first[0].bytes()) << "not reproducible";
  }

  /// The finish is what the kinds do that it stands for: the same bits.
  void check_finish(const Matmul& op, Operand& unfinished, std::vector<Operand>& inputs, Operand& finished) {
    const Activation activation = op.epilogue().activation;
    if (op.finish() == Matmul::Finish::none) return;
    Operand expected = op.finish() == Matmul::Finish::gelu_slope
                           ? this->run(GeluGrad(activation), {inputs.back(), unfinished})[0]
                           : this->run(Gelu(activation), {unfinished})[0];
    EXPECT_EQ(finished.bytes(), expected.bytes()) << op.attributes();
  }

  /// A product of every form with every epilogue.
  template <class Check>
  static void for_every_kind(const Check& check) {
    using enum Matmul::Finish;
    for (const Matmul::Form form : {Matmul::Form::nn, Matmul::Form::nt, Matmul::Form::tn}) {
      for (const Matmul::Bias bias : {Matmul::Bias::none, Matmul::Bias::of_columns}) {
        for (const Matmul::Addend addend : {Matmul::Addend::none, Matmul::Addend::operand, Matmul::Addend::in_place})
          check(Matmul(form, {bias, addend}));
        for (const Matmul::Finish finish : {gelu, gelu_and_input, gelu_slope})
          for (const Activation activation : {Activation::gelu_tanh, Activation::gelu_erf})
            check(Matmul(form, {.bias = bias, .finish = finish, .activation = activation}));
      }
    }
  }
};
TYPED_TEST_SUITE(MatmulTest, FloatTypes);

TYPED_TEST(MatmulTest, AllFormsAndEpilogues) {
  this->for_every_kind([&](const Matmul& op) {
    for (int round = 0; round < 8; ++round) this->check(op, this->size(70), this->size(70), this->size(70));
    this->check(op, 1, 1, 1);
    this->check(op, 64, 192, 64);
    this->check(op, 64 + this->size(50), this->size(150), this->size(150));  // rows enough to pack
    this->check(op, 101, 131, 523);                                          // several blocks each way
  });
}

TYPED_TEST(MatmulTest, DeepProductsInPieces) {
  for (const Matmul::Form form : {Matmul::Form::nn, Matmul::Form::tn}) {
    this->check(Matmul(form), 70, 700, 5000);
    this->check(Matmul(form, {Matmul::Bias::of_columns, Matmul::Addend::operand}), 65, 800 + this->size(50), 4000);
    this->check(Matmul(form, {Matmul::Bias::none, Matmul::Addend::in_place}), 64, 800, 4000 + this->size(50));
  }
}

TYPED_TEST(MatmulTest, WideProductsInPieces) {
  this->check(Matmul(Matmul::Form::nn), 64, 3000, 800);
  this->check(Matmul(Matmul::Form::nn, {.bias = Matmul::Bias::of_columns, .finish = Matmul::Finish::gelu_and_input}),
              70, 3500 + this->size(50), 700);
  this->check(Matmul(Matmul::Form::nn, {Matmul::Bias::of_columns, Matmul::Addend::operand}), 65, 1700, 1300);
}

TYPED_TEST(MatmulTest, EmptyDepthGivesWhatIsAdded) {
  this->for_every_kind([&](const Matmul& op) { this->check(op, 3, 5, 0); });
}

TYPED_TEST(MatmulTest, DimsBehindTheFirstAreOne) {
  Operand a = this->random(this->kType, {5, 2, 3}), b = this->random(this->kType, {4, 2, 3});
  Operand flat_a(this->kType, {5, 6}, a.numbers()), flat_b(this->kType, {4, 6}, b.numbers());
  EXPECT_EQ(this->run(Matmul(Matmul::Form::nt), {a, b})[0].numbers(),
            this->run(Matmul(Matmul::Form::nt), {flat_a, flat_b})[0].numbers());
}

}  // namespace
}  // namespace annulus::testing
