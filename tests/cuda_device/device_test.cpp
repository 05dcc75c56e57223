// The CUDA device on a GPU. Without one: that it says so.
#include "runtime/cuda/device.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <iostream>
#include <random>

#include "runtime/cpu/device.h"
#include "tests/cuda_device/gpu.h"
#include "tests/op_table.h"

namespace annulus::testing {
namespace {

TEST(CudaDeviceStart, AnAbsentDeviceIsAnErrorWithARemedy) {
  const std::string why = absence();
  if (why.empty()) {
    EXPECT_THROW(CudaDevice({.ordinal = static_cast<int>(cuda_gpus().size())}), DeviceError);
    return;
  }
  EXPECT_NE(why.find("use device.kind=cpu") + why.find("install a newer driver"), 2 * std::string::npos) << why;
  EXPECT_THROW(CudaDevice({}), DeviceError);
}

class OnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = absence(); !why.empty()) GTEST_SKIP() << "no device: " << why;
    std::cout << "seed " << seed_ << "\n";
    gpu_ = std::make_unique<CudaDevice>(CudaOptions{});
    std::cout << gpu_->description() << "\n";
    memory_ = gpu_->allocate(kMemory);
  }

  /// The op's outputs on a device, whose operands lie at `memory`.
  std::vector<Numbers> outputs(Device& device, std::byte* memory, const OpCase& drawn) {
    std::int64_t used = 0;
    const auto take = [&](const ValueType& type) {
      const Tensor tensor{memory + used, type.dtype, type.shape};
      used += (tensor.bytes() + 255) / 256 * 256;
      return tensor;
    };
    std::vector<ValueType> types;
    std::vector<Tensor> in, out;
    for (const OpInput& input : drawn.inputs) {
      types.push_back({input.dtype, input.shape, {}});
      in.push_back(take(types.back()));
      write(device, in.back(), input.values);
    }
    const OpPointer op = drawn.make(MeshAxes{}, types);
    const std::vector<ValueType> output_types = op->infer(MeshAxes{}, types);
    for (const ValueType& type : output_types) out.push_back(take(type));
    for (const Alias& alias : op->aliases())
      out[static_cast<std::size_t>(alias.output)] = in[static_cast<std::size_t>(alias.input)];
    WorkCounters counters;
    const std::int64_t bytes = device.workspace_bytes(*op, types, output_types);
    if (used + bytes > kMemory) throw InternalError("the test's memory is too small");
    device.run(*op, {in, out, memory + used, bytes, &counters});
    std::vector<Numbers> numbers;
    for (const Tensor& tensor : out) numbers.push_back(read(device, tensor));
    return numbers;
  }

  static void write(Device& device, const Tensor& tensor, const Numbers& numbers) {
    const auto put = [&](auto zero) {
      const std::vector<decltype(zero)> raw(numbers.begin(), numbers.end());
      device.copy_to_device(tensor.data, raw.data(), tensor.bytes());
    };
    tensor.dtype == DType::i32 ? put(std::int32_t{}) : dispatch_stored(tensor.dtype, put);
  }
  static Numbers read(Device& device, const Tensor& tensor) {
    return dispatch_stored(tensor.dtype, [&](auto zero) {
      std::vector<decltype(zero)> raw(static_cast<std::size_t>(tensor.elements()));
      device.copy_from_device(raw.data(), tensor.data, tensor.bytes());
      return Numbers(raw.begin(), raw.end());
    });
  }

  static double tolerance(DType dtype) {
    if (is_half(dtype)) return dtype == DType::bf16 ? 0x1p-6 : 0x1p-9;
    return dtype == DType::f64 ? 1e-12 : 2e-5;
  }

  void compare(OpKind kind, DType dtype) {
    CpuDevice cpu;
    std::byte* memory = cpu.allocate(kMemory);
    Draw draw(seed_, 1);
    for (int round = 0; round < 5; ++round) {
      for (const OpCase& drawn : cases_of(kind, {draw, dtype})) {
        const std::vector<Numbers> actual = outputs(*gpu_, memory_, drawn), expected = outputs(cpu, memory, drawn);
        for (std::size_t i = 0; i < expected.size(); ++i) {
          for (std::size_t j = 0; j < expected[i].size(); ++j) {
            const double allowed = tolerance(dtype) * (1 + std::abs(expected[i][j]));
            if (actual[i][j] == expected[i][j]) continue;  // infinities, too
            ASSERT_NEAR(actual[i][j], expected[i][j], allowed)
                << fmt::format("{} {}: output {}, element {}", name_of(kind), drawn.label, i, j);
          }
        }
      }
    }
  }

  static constexpr std::int64_t kMemory = std::int64_t{256} << 20;
  const std::uint64_t seed_ = std::random_device{}();
  std::unique_ptr<CudaDevice> gpu_;
  std::byte* memory_ = nullptr;
};

TEST_F(OnGpu, EveryKindAgainstTheCpu) {
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16})
    for (const OpKind kind : kComputeKinds) compare(kind, dtype);
}

TEST_F(OnGpu, TooMuchMemoryIsRefusedByName) {
  try {
    gpu_->allocate(std::int64_t{1} << 50);
    FAIL() << "a petabyte was given";
  } catch (const DeviceError& error) {
    EXPECT_NE(std::string(error.what()).find("cannot allocate 1125899906842624 bytes"), std::string::npos);
  }
}

}  // namespace
}  // namespace annulus::testing
