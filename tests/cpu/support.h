#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "runtime/program/op.h"
#ifdef ANNULUS_TEST_FIBERS
#include "tests/cuda/fiber_device.h"
#else
#include "runtime/cpu/device.h"
#endif

namespace annulus::testing {

/// The same tests hold the CPU's kernels and, where built so (tests/CMakeLists.txt), the bodies of CUDA's.
#ifdef ANNULUS_TEST_FIBERS
using TestedDevice = FiberDevice;
#else
using TestedDevice = CpuDevice;
#endif

using Numbers = std::vector<double>;

/// A tensor with memory of its own, written and read as doubles.
class Operand {
 public:
  Operand() = default;
  Operand(DType dtype, Shape shape)
      : dtype_(dtype), shape_(shape), bytes_(static_cast<std::size_t>(shape.elements() * size_of(dtype))) {}
  Operand(DType dtype, Shape shape, const Numbers& numbers) : Operand(dtype, shape) {
    if (dtype == DType::i32) {
      write<std::int32_t>(numbers);
    } else {
      dispatch_stored(dtype, [&]<class T>(T) { write<T>(numbers); });
    }
  }

  Tensor tensor() { return {bytes_.data(), dtype_, shape_}; }
  ValueType type() const { return {dtype_, shape_, {}}; }
  const std::vector<std::byte>& bytes() const { return bytes_; }
  std::vector<std::byte>& bytes() { return bytes_; }
  /// What the tensor holds: after rounding to its type.
  Numbers numbers() {
    return dispatch_stored(dtype_, [&]<class T>(T) {
      const T* from = tensor().as<T>();
      return Numbers(from, from + shape_.elements());
    });
  }

 private:
  template <class T>
  void write(const Numbers& numbers) {
    ASSERT_EQ(static_cast<std::int64_t>(numbers.size()), shape_.elements());
    std::transform(numbers.begin(), numbers.end(), tensor().as<T>(),
                   [](double x) { return static_cast<T>(static_cast<Wide<T>>(x)); });
  }

  DType dtype_ = DType::f32;
  Shape shape_{0};
  std::vector<std::byte> bytes_;
};

/// Tests that run every kernel through the device, on fresh random numbers; a failure shows the seed.
class KernelTest : public ::testing::Test {
 protected:
  KernelTest()
      : seed_(std::random_device{}()), engine_(seed_), trace_(__FILE__, __LINE__, "seed " + std::to_string(seed_)) {}

  /// Runs `op` as the executor does: shapes from the op, outputs over the inputs that they alias, a workspace of just
  /// the size asked for. What the kernel must write holds NaN before.
  std::vector<Operand> run(const OpDefinition& op, std::vector<Operand> inputs) {
    std::vector<ValueType> input_types, output_types;
    std::vector<Tensor> input_tensors, output_tensors;
    for (Operand& input : inputs) input_types.push_back(input.type());
    output_types = op.infer(MeshAxes{}, input_types);
    std::vector<Operand> outputs;
    for (const ValueType& type : output_types) {
      outputs.emplace_back(type.dtype, type.shape);
      std::fill(outputs.back().bytes().begin(), outputs.back().bytes().end(), std::byte{0xFF});
    }
    for (Operand& input : inputs) input_tensors.push_back(input.tensor());
    for (Operand& output : outputs) output_tensors.push_back(output.tensor());
    for (const Alias& alias : op.aliases()) {
      output_tensors[static_cast<std::size_t>(alias.output)] = input_tensors[static_cast<std::size_t>(alias.input)];
    }
    constexpr std::size_t kGuard = 256;
    const std::int64_t bytes = device_.workspace_bytes(op, input_types, output_types);
    std::vector<std::byte> workspace(static_cast<std::size_t>(bytes) + kGuard, std::byte{0xFF});
    counters_ = {};
    device_.run(op, {input_tensors, output_tensors, workspace.data(), bytes, &counters_});
    EXPECT_TRUE(
        std::all_of(workspace.end() - kGuard, workspace.end(), [](std::byte b) { return b == std::byte{0xFF}; }))
        << op.name() << " wrote behind its workspace";
    for (const Alias& alias : op.aliases()) {
      outputs[static_cast<std::size_t>(alias.output)].bytes() = inputs[static_cast<std::size_t>(alias.input)].bytes();
    }
    return outputs;
  }

  double normal(double deviation = 1) { return std::normal_distribution<>(0, deviation)(engine_); }
  /// In [first, last].
  std::int64_t integer(std::int64_t first, std::int64_t last) {
    return std::uniform_int_distribution<std::int64_t>(first, last)(engine_);
  }
  /// A size: often 1, else of any parity.
  std::int64_t size(std::int64_t most) { return integer(0, 4) == 0 ? 1 : integer(1, most); }
  Operand random(DType dtype, Shape shape, double deviation = 1) {
    Numbers numbers(static_cast<std::size_t>(shape.elements()));
    for (double& x : numbers) x = normal(deviation);
    return {dtype, shape, numbers};
  }
  /// Integers in [first, last].
  Operand random_ids(Shape shape, std::int64_t first, std::int64_t last) {
    Numbers numbers(static_cast<std::size_t>(shape.elements()));
    for (double& x : numbers) x = static_cast<double>(integer(first, last));
    return {DType::i32, shape, numbers};
  }

  TestedDevice device_;
  WorkCounters counters_;

 private:
  std::uint64_t seed_;
  std::mt19937_64 engine_;
  ::testing::ScopedTrace trace_;
};

/// For tests of every floating type.
template <class T>
class FloatKernelTest : public KernelTest {
 protected:
  static constexpr DType kType = dtype_of<T>();
  /// What rounding explains: `factor` units of float, or of 1e-14 in f64.
  static constexpr double tolerance(double factor = 20) { return factor * (kType == DType::f32 ? 1.2e-7 : 1e-14); }
};
using FloatTypes = ::testing::Types<float, double>;

inline double largest_magnitude(const Numbers& numbers) {
  double largest = 0;
  for (double x : numbers) largest = std::max(largest, std::abs(x));
  return largest;
}

/// The size that a sum of `terms` random terms usually has: what its rounding is measured against, where it cancels.
inline double usual_sum(std::int64_t terms) { return std::sqrt(static_cast<double>(terms)); }

/// Every element within `tolerance` of the largest expected magnitude, or of `least`, where all are smaller.
inline void expect_close(const Numbers& actual, const Numbers& expected, double tolerance, const std::string& what = {},
                         double least = 1e-30) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  const double allowed = tolerance * std::max(largest_magnitude(expected), least);
  double worst = 0;
  std::size_t at = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double error = actual[i] == expected[i] ? 0 : std::abs(actual[i] - expected[i]);
    if (!(error <= worst)) worst = error, at = i;
  }
  EXPECT_LE(worst, allowed) << what << ": element " << at << " is " << (actual.empty() ? 0 : actual[at]) << ", not "
                            << (actual.empty() ? 0 : expected[at]);
}

/// The gradient of `function` at `x`, by central differences.
inline Numbers finite_difference(const std::function<double(const Numbers&)>& function, Numbers x) {
  Numbers gradient(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double kept = x[i], step = 1e-5 * std::max(1.0, std::abs(kept));
    x[i] = kept + step;
    const double above = function(x);
    x[i] = kept - step;
    gradient[i] = (above - function(x)) / (2 * step);
    x[i] = kept;
  }
  return gradient;
}

inline double dot(const Numbers& a, const Numbers& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace annulus::testing
