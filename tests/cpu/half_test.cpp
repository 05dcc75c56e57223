// Every row of the op table on bf16 and f16 against float64, which is given the same rounded operands.
#include <fmt/format.h>

#include "tests/cpu/support.h"
#include "tests/op_table.h"

namespace annulus::testing {
namespace {

/// Half a unit in the last place of 1.
constexpr double rounding(DType dtype) { return dtype == DType::bf16 ? 0x1p-8 : dtype == DType::f16 ? 0x1p-11 : 0; }

template <class T>
class HalfKernels : public KernelTest {
 protected:
  static constexpr DType kType = dtype_of<T>();

  /// What the op makes of the operands as f64.
  std::vector<Operand> exact(const OpDefinition& op, std::vector<Operand> inputs) {
    for (Operand& input : inputs)
      if (input.type().dtype != DType::i32) input = Operand(DType::f64, input.type().shape, input.numbers());
    const auto* adamw = as<AdamW>(op);
    if (!adamw || adamw->working_copy() == AdamW::WorkingCopy::none) return this->run(op, std::move(inputs));
    const std::size_t n = adamw->weights();
    inputs.resize(inputs.size() - n);  // only halves have working copies: they are the weights
    std::vector<Operand> updated = this->run(AdamW(adamw->options(), AdamW::WorkingCopy::none, n), std::move(inputs));
    for (std::size_t i = 0; i < n; ++i) updated.push_back(Operand(updated[i]));
    return updated;
  }

  void compare(const OpCase& drawn, const std::string& what) {
    std::vector<Operand> inputs;
    std::vector<ValueType> types;
    for (const OpInput& input : drawn.inputs) {
      inputs.emplace_back(input.dtype, input.shape, input.values);
      types.push_back(inputs.back().type());
    }
    const OpPointer op = drawn.make(MeshAxes{}, types);
    std::vector<Operand> expected = exact(*op, inputs);
    std::vector<Operand> actual = this->run(*op, inputs);
    ASSERT_EQ(actual.size(), expected.size());
    for (std::size_t i = 0; i < actual.size(); ++i) {
      // The last rounding is of each element; what f32 does before it, of the largest.
      const Numbers got = actual[i].numbers(), want = expected[i].numbers();
      const double allowed = 1e-5 * std::max(1.0, largest_magnitude(want)), unit = rounding(actual[i].type().dtype);
      for (std::size_t k = 0; k < got.size(); ++k) {
        if (got[k] == want[k]) continue;
        ASSERT_LE(std::abs(got[k] - want[k]), allowed + unit * std::abs(want[k]))
            << what << ": output " << i << ", element " << k;
      }
    }
  }
};
using HalfTypes = ::testing::Types<BFloat16, Float16>;
TYPED_TEST_SUITE(HalfKernels, HalfTypes);

TYPED_TEST(HalfKernels, EveryKindAgainstFloat64) {
#ifdef ANNULUS_TEST_FIBERS
  GTEST_SKIP() << "CUDA's kernels are held against the CPU's: tests/cuda/op_table_test.cpp";
#endif
  Draw draw(static_cast<std::uint64_t>(this->integer(0, 1 << 30)), 1);
  for (const OpKind kind : kComputeKinds)
    for (int round = 0; round < 5; ++round)
      for (const OpCase& drawn : cases_of(kind, {draw, this->kType}))
        this->compare(drawn, fmt::format("{} {}", name_of(kind), drawn.label));
}

}  // namespace
}  // namespace annulus::testing
