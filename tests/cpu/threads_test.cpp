#include "runtime/cpu/device.h"
#include "runtime/cpu/parallel.h"
#include "runtime/ops/cross_entropy.h"
#include "runtime/ops/elementwise.h"
#include "runtime/ops/embed.h"
#include "runtime/ops/layer_norm.h"
#include "runtime/ops/optimizer.h"
#include "tests/cpu/support.h"

namespace annulus::testing {
namespace {

template <class T>
class ThreadsTest : public FloatKernelTest<T> {
 protected:
  ThreadsTest() : threads_(thread_count()) {}
  ~ThreadsTest() override { CpuDevice restore(threads_); }

  /// The results are the same bits on any number of threads.
  void expect_same(const OpDefinition& op, const std::vector<Operand>& inputs) {
    std::vector<Operand> expected;
    for (int threads : {1, 2, 3, 7}) {
      CpuDevice setting(threads);
      const std::vector<Operand> outputs = this->run(op, inputs);
      if (expected.empty()) expected = outputs;
      for (std::size_t i = 0; i < outputs.size(); ++i)
        EXPECT_EQ(outputs[i].bytes(), expected[i].bytes()) << op.name() << " on " << threads << " threads";
    }
  }
  Operand matrix(std::int64_t rows, std::int64_t columns) { return this->random(this->kType, {rows, columns}); }

 private:
  int threads_;
};
TYPED_TEST_SUITE(ThreadsTest, FloatTypes);

TYPED_TEST(ThreadsTest, Passes) {
  const std::int64_t rows = this->integer(150, 250), columns = this->integer(700, 900);
  const Operand x = this->matrix(rows, columns), y = this->matrix(rows, columns);
  const Operand vector = this->random(this->kType, {columns});
  this->expect_same(Add(), {x, y});
  this->expect_same(AddBias(), {x, vector});
  this->expect_same(ColumnSum(), {x});
  for (Activation activation : {Activation::gelu_tanh, Activation::gelu_erf}) {
    this->expect_same(Gelu(activation), {x});
    this->expect_same(GeluGrad(activation), {x, y});
  }
  this->expect_same(LayerNorm(1e-5), {x, vector, vector});
  this->expect_same(LayerNormGrad(), {x, vector, this->matrix(rows, 2), y});
  const Operand ids = this->random_ids({rows, 2}, 0, 1000), step(DType::i32, {1}, {3});
  this->expect_same(Dropout({0.4, 3, 4}, 5), {x, ids, step});
  const Operand tokens = this->random_ids({rows}, 0, 30), table = this->matrix(31, columns);
  this->expect_same(Embed(0), {tokens, table});
  this->expect_same(EmbedGrad(0), {tokens, table, x});
}

TYPED_TEST(ThreadsTest, LossAndOptimizer) {
  const std::int64_t rows = this->integer(20, 40), columns = this->integer(5000, 6000);
  const Operand x = this->matrix(rows, columns), y = this->matrix(rows, columns),
                row = this->random(this->kType, {rows});
  const VocabularyShard shard{0, columns - 7};
  this->expect_same(RowMax(shard), {x});
  this->expect_same(RowSumExp(shard), {x, row});
  this->expect_same(NllGrad(shard), {x, row, row, this->random_ids({rows}, 0, columns - 8), row});
  this->expect_same(SumSquares(), {x, row, y});
  Numbers positive = Operand(y).numbers();
  for (double& number : positive) number *= number;
  const Operand squares(this->kType, {rows, columns}, positive), four(DType::f64, {4}, {0.5, 0.4, 0.3, 0});
  this->expect_same(AdamW(AdamW::Options{}), {x, y, y, squares, four, four});
}

}  // namespace
}  // namespace annulus::testing
