#include "runtime/cuda/attention_rows.h"

#include <algorithm>
#include <limits>

#include "runtime/ops/attention.h"
#include "tests/cpu/support.h"
#include "tests/cuda/fibers.h"

namespace annulus::testing {
namespace {

constexpr float kNoKey = -std::numeric_limits<float>::infinity();

class AttentionRowsTest : public KernelTest {
 protected:
  AttentionRowsTest() : scheduler_(std::random_device{}()) {}

  SequenceRows random_rows() {
    const std::int64_t positions = integer(1, 9), begin = integer(0, positions - 1);
    return {integer(1, 3), positions, begin, integer(0, positions - begin)};
  }
  std::vector<float> random_floats(std::int64_t count) {
    std::vector<float> numbers(static_cast<std::size_t>(count));
    for (float& x : numbers) x = static_cast<float>(normal());
    return numbers;
  }
  static float& at(std::vector<float>& of, std::int64_t i) { return of[static_cast<std::size_t>(i)]; }

  FiberScheduler scheduler_;
  FiberLauncher launcher_{scheduler_};
};

/// Calls visit(index among the packed rows, sequence, position in the packed rows, row among all).
template <class Visit>
void for_rows(const SequenceRows& rows, Visit visit) {
  for (std::int64_t sequence = 0; sequence < rows.sequences; ++sequence) {
    for (std::int64_t i = 0; i < rows.count; ++i) {
      visit(sequence * rows.count + i, sequence, i, sequence * rows.positions + rows.begin + i);
    }
  }
}

TEST_F(AttentionRowsTest, OtherRowsAreFilled) {
  for (int round = 0; round < 20; ++round) {
    const SequenceRows rows = random_rows();
    const std::int64_t columns = integer(1, 5);
    std::vector<float> words = random_floats(rows.sequences * rows.positions * columns);
    std::vector<float> expected(words.size(), kNoKey);
    for_rows(rows, [&](std::int64_t, std::int64_t, std::int64_t, std::int64_t row) {
      for (std::int64_t j = 0; j < columns; ++j) at(expected, row * columns + j) = at(words, row * columns + j);
    });
    launch_rows(launcher_, FillOtherRows{reinterpret_cast<std::uint32_t*>(words.data()), rows, columns, 0xFF800000});
    EXPECT_EQ(words, expected);
  }
}

TEST_F(AttentionRowsTest, LogSumExpsArePackedByHead) {
  for (int round = 0; round < 20; ++round) {
    const SequenceRows rows = random_rows();
    const std::int64_t heads = integer(1, 5);
    std::vector<float> lse = random_floats(rows.sequences * rows.positions * heads);
    std::vector<float> packed(static_cast<std::size_t>(rows.sequences * rows.count * heads)), expected = packed;
    for_rows(rows, [&](std::int64_t, std::int64_t sequence, std::int64_t i, std::int64_t row) {
      for (std::int64_t head = 0; head < heads; ++head) {
        at(expected, (sequence * heads + head) * rows.count + i) = at(lse, row * heads + head);
      }
    });
    launch_rows(launcher_, PackLogSumExp{lse.data(), packed.data(), rows, heads});
    EXPECT_EQ(packed, expected);
  }
}

TEST_F(AttentionRowsTest, PackedRowsAreAdded) {
  for (int round = 0; round < 20; ++round) {
    const SequenceRows rows = random_rows();
    const std::int64_t columns = integer(1, 9);
    std::vector<float> sum = random_floats(rows.sequences * rows.positions * columns), expected = sum;
    std::vector<float> packed = random_floats(rows.sequences * rows.count * columns);
    for_rows(rows, [&](std::int64_t index, std::int64_t, std::int64_t, std::int64_t row) {
      for (std::int64_t j = 0; j < columns; ++j) at(expected, row * columns + j) += at(packed, index * columns + j);
    });
    const Tensor in_place{
        reinterpret_cast<std::byte*>(sum.data()), DType::f32, {static_cast<std::int64_t>(sum.size())}};
    Operand rounded(DType::bf16, in_place.shape);
    launch_rows(launcher_, AddPackedRows<BFloat16>{EitherWidth<BFloat16>(rounded.tensor()), sum.data(), packed.data(),
                                                   rows, columns});
    launch_rows(launcher_,
                AddPackedRows<BFloat16>{EitherWidth<BFloat16>(in_place), sum.data(), packed.data(), rows, columns});
    EXPECT_EQ(sum, expected);
    const Numbers halves = rounded.numbers();
    for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(halves[i], static_cast<float>(BFloat16(expected[i])));
  }
}

TEST_F(AttentionRowsTest, PackedHalvesAreWidened) {
  for (int round = 0; round < 20; ++round) {
    const SequenceRows rows = random_rows();
    const std::int64_t columns = integer(1, 9);
    std::vector<float> wide = random_floats(rows.sequences * rows.positions * columns), expected = wide;
    Operand packed = random(DType::f16, {rows.sequences * rows.count * columns});
    const Numbers numbers = packed.numbers();
    for_rows(rows, [&](std::int64_t index, std::int64_t, std::int64_t, std::int64_t row) {
      for (std::int64_t j = 0; j < columns; ++j) {
        at(expected, row * columns + j) = static_cast<float>(numbers[static_cast<std::size_t>(index * columns + j)]);
      }
    });
    launch_rows(launcher_, WidenPackedRows<Float16>{wide.data(), packed.tensor().as<Float16>(), rows, columns});
    EXPECT_EQ(wide, expected);
  }
}

/// Two steps that the CPU's kernel runs one by one, merged, are what it makes of both; some rows see nothing in one of
/// them, or in both.
TEST_F(AttentionRowsTest, MergedStepsAreOne) {
  for (int round = 0; round < 10; ++round) {
    const std::int64_t sequences = integer(1, 2), heads = integer(1, 3), head_dim = integer(1, 40), n = integer(2, 20);
    const Attention composite({head_dim, sequences}, {}, {}, 0);
    const auto end = static_cast<std::int32_t>(n), cut = static_cast<std::int32_t>(integer(1, n - 1));
    const std::vector<AttentionBlock> early{
        {.query_begin = 0, .query_end = end, .key_begin = 0, .key_end = cut, .causal = true, .diagonal = -2}};
    const std::vector<AttentionBlock> late{
        {.query_begin = cut, .query_end = end, .key_begin = cut, .key_end = end, .causal = true, .diagonal = -1}};
    const Operand q = random(DType::f32, {sequences * n, heads * head_dim}, 2),
                  kv = random(DType::f32, {sequences * n, 2, heads * head_dim}, 2),
                  row_ids(DType::i32, {sequences * n, 2}), step(DType::i32, {1});
    std::vector<Operand> running = run(AttentionStep(composite, early, true), {q, kv, row_ids, step});
    std::vector<Operand> other = run(AttentionStep(composite, late, true), {q, kv, row_ids, step});
    std::vector<Operand> expected =
        run(AttentionStep(composite, late, false), {q, kv, row_ids, step, running[0], running[1]});
    const SequenceRows rows{sequences, n, cut, n - cut};
    std::vector<float> packed_out(static_cast<std::size_t>(sequences * rows.count * heads * head_dim)),
        packed_lse(static_cast<std::size_t>(sequences * heads * rows.count));
    for_rows(rows, [&](std::int64_t index, std::int64_t sequence, std::int64_t i, std::int64_t row) {
      const std::int64_t width = heads * head_dim;
      std::copy_n(other[0].tensor().as<float>() + row * width, width, packed_out.data() + index * width);
      for (std::int64_t head = 0; head < heads; ++head) {
        at(packed_lse, (sequence * heads + head) * rows.count + i) = other[1].tensor().as<float>()[row * heads + head];
      }
    });
    const Operand lse_before = running[1];
    Operand rounded(DType::bf16, running[0].type().shape);
    const float* earlier = running[0].tensor().as<float>();
    for (Operand* out : {&rounded, &running[0]}) {
      running[1] = lse_before;
      launch_rows(launcher_, MergePackedRows<BFloat16>{EitherWidth<BFloat16>(out->tensor()), earlier,
                                                       running[1].tensor().as<float>(), packed_out.data(),
                                                       packed_lse.data(), rows, heads, head_dim});
    }
    expect_close(running[0].numbers(), expected[0].numbers(), 1e-5, "out");
    expect_close(rounded.numbers(), expected[0].numbers(), 0.005, "rounded out");
    const Numbers lse = running[1].numbers(), expected_lse = expected[1].numbers();
    for (std::size_t i = 0; i < lse.size(); ++i) {
      if (std::isinf(expected_lse[i])) {
        EXPECT_EQ(lse[i], expected_lse[i]);
      } else {
        EXPECT_NEAR(lse[i], expected_lse[i], 1e-5);
      }
    }
  }
}

}  // namespace
}  // namespace annulus::testing
