// Every row of the op table on the bodies of CUDA's kernels against the CPU's kernels.
#include "tests/op_table.h"

#include <fmt/format.h>

#include "runtime/cpu/device.h"
#include "tests/cpu/support.h"

namespace annulus::testing {
namespace {

template <class T>
class CudaTwin : public FloatKernelTest<T> {
 protected:
  /// The op's outputs on a device; aliased ones are the inputs' memory.
  static std::vector<Numbers> outputs(Device& device, const OpDefinition& op, std::vector<Operand> inputs,
                                      WorkCounters& counters) {
    std::vector<ValueType> types;
    std::vector<Tensor> in, out;
    for (Operand& input : inputs) {
      types.push_back(input.type());
      in.push_back(input.tensor());
    }
    const std::vector<ValueType> output_types = op.infer(MeshAxes{}, types);
    std::vector<Operand> results;
    for (const ValueType& type : output_types) results.emplace_back(type.dtype, type.shape);
    for (Operand& result : results) out.push_back(result.tensor());
    for (const Alias& alias : op.aliases())
      out[static_cast<std::size_t>(alias.output)] = in[static_cast<std::size_t>(alias.input)];
    std::vector<std::byte> workspace(static_cast<std::size_t>(device.workspace_bytes(op, types, output_types)));
    device.run(op, {in, out, workspace.data(), static_cast<std::int64_t>(workspace.size()), &counters});
    std::vector<Numbers> numbers;
    for (const Tensor& tensor : out) {
      dispatch_float(tensor.dtype,
                     [&]<class U>(U) { numbers.emplace_back(tensor.as<U>(), tensor.as<U>() + tensor.elements()); });
    }
    return numbers;
  }

  void compare(const OpCase& drawn, const std::string& what) {
    std::vector<Operand> inputs;
    std::vector<ValueType> types;
    for (const OpInput& input : drawn.inputs) {
      inputs.emplace_back(input.dtype, input.shape, input.values);
      types.push_back(inputs.back().type());
    }
    const OpPointer op = drawn.make(MeshAxes{}, types);
    CpuDevice cpu;
    WorkCounters of_twin, of_cpu;
    const std::vector<Numbers> twin = outputs(this->device_, *op, inputs, of_twin);
    const std::vector<Numbers> expected = outputs(cpu, *op, inputs, of_cpu);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      expect_close(twin[i], expected[i], this->tolerance(100), fmt::format("{}: output {}", what, i), 1);
    }
    EXPECT_EQ(of_twin.attended_pairs, of_cpu.attended_pairs) << what;
  }
};
TYPED_TEST_SUITE(CudaTwin, FloatTypes);

TYPED_TEST(CudaTwin, EveryKind) {
  Draw draw(static_cast<std::uint64_t>(this->integer(0, 1 << 30)), 1);
  const auto check_kind = [&](OpKind kind) {
    for (int round = 0; round < 3; ++round) {
      for (const OpCase& drawn : cases_of(kind, {draw, this->kType})) {
        this->compare(drawn, fmt::format("{} {}", name_of(kind), drawn.label));
      }
    }
  };
#define ANNULUS_KIND(enumerator, type) check_kind(OpKind::enumerator);
  ANNULUS_COMPUTE_KINDS(ANNULUS_KIND)
#undef ANNULUS_KIND
}

}  // namespace
}  // namespace annulus::testing
