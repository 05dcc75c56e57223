// Every row of the op table on the bodies of CUDA's kernels against the CPU's kernels.
#include "tests/op_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>

#include "runtime/cpu/device.h"
#include "tests/cpu/support.h"

namespace annulus::testing {
namespace {

template <class T>
class CudaTwin : public FloatKernelTest<T> {
 protected:
  /// A copy of an operand, which begins `elements` behind where allocations begin.
  struct Moved {
    std::vector<std::byte> bytes;
    Tensor tensor;
    Moved(Operand& operand, std::int64_t elements) : tensor(operand.tensor()) {
      const std::int64_t skipped = elements * size_of(tensor.dtype);
      bytes.resize(static_cast<std::size_t>(skipped + tensor.bytes()));
      std::copy(operand.bytes().begin(), operand.bytes().end(), bytes.begin() + skipped);
      tensor.data = bytes.data() + skipped;
    }
  };

  /// The op's outputs on a device, of operands that begin at `offset()` elements; aliased ones are the inputs' memory.
  template <class Offset>
  static std::vector<Numbers> outputs(Device& device, const OpDefinition& op, std::vector<Operand> inputs,
                                      const Offset& offset, WorkCounters& counters) {
    std::vector<ValueType> types;
    std::vector<Tensor> in, out;
    std::deque<Moved> moved;
    for (Operand& input : inputs) {
      types.push_back(input.type());
      in.push_back(moved.emplace_back(input, offset()).tensor);
    }
    const std::vector<ValueType> output_types = op.infer(MeshAxes{}, types);
    for (const ValueType& type : output_types) {
      Operand result(type.dtype, type.shape);
      out.push_back(moved.emplace_back(result, offset()).tensor);
    }
    for (const Alias& alias : op.aliases())
      out[static_cast<std::size_t>(alias.output)] = in[static_cast<std::size_t>(alias.input)];
    std::vector<std::byte> workspace(static_cast<std::size_t>(device.workspace_bytes(op, types, output_types)));
    device.run(op, {in, out, workspace.data(), static_cast<std::int64_t>(workspace.size()), &counters});
    std::vector<Numbers> numbers;
    for (const Tensor& tensor : out) {
      dispatch_stored(tensor.dtype,
                      [&]<class U>(U) { numbers.emplace_back(tensor.as<U>(), tensor.as<U>() + tensor.elements()); });
    }
    return numbers;
  }

  /// What two ways to the same number may differ by: in sums, or by rounding them, and what they are made of, to
  /// halves.
  static double allowed(DType dtype) {
    if (!is_half(dtype)) return 100 * (dtype == DType::f32 ? 1.2e-7 : 1e-14);
    return dtype == DType::bf16 ? 0x1p-7 : 0x1p-10;
  }

  void compare(const OpCase& drawn, const std::string& what) {
    std::vector<Operand> inputs;
    std::vector<ValueType> types;
    for (const OpInput& input : drawn.inputs) {
      inputs.emplace_back(input.dtype, input.shape, input.values);
      types.push_back(inputs.back().type());
    }
    const OpPointer op = drawn.make(MeshAxes{}, types);
    const bool aligned = this->integer(0, 1) == 0;
    CpuDevice cpu;
    WorkCounters of_twin, of_cpu;
    const std::vector<Numbers> twin = outputs(
        this->device_, *op, inputs, [&] { return aligned ? 0 : this->integer(0, 3); }, of_twin);
    const std::vector<Numbers> expected = outputs(
        cpu, *op, inputs, [] { return 0; }, of_cpu);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      expect_close(twin[i], expected[i], allowed(op->infer(MeshAxes{}, types)[i].dtype),
                   fmt::format("{}: output {}", what, i), 1);
    }
    EXPECT_EQ(of_twin.attended_pairs, of_cpu.attended_pairs) << what;
  }
};
using StoredTypes = ::testing::Types<float, double, BFloat16, Float16>;
TYPED_TEST_SUITE(CudaTwin, StoredTypes);

TYPED_TEST(CudaTwin, EveryKind) {
  Draw draw(static_cast<std::uint64_t>(this->integer(0, 1 << 30)), 1);
  for (const OpKind kind : kComputeKinds)
    for (int round = 0; round < 3; ++round)
      for (const OpCase& drawn : cases_of(kind, {draw, this->kType}))
        this->compare(drawn, fmt::format("{} {}", name_of(kind), drawn.label));
}

}  // namespace
}  // namespace annulus::testing
