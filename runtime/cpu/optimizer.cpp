#include <algorithm>

#include "runtime/core/formulas.h"
#include "runtime/core/half_vector.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/parallel.h"
#include "runtime/cpu/vector_loops.h"

namespace annulus {
namespace {

constexpr std::int64_t kBlock = 65536;

std::int64_t blocks_of(std::int64_t count) { return (count + kBlock - 1) / kBlock; }

/// kLanes<double> numbers.
Vector<double> load_doubles(const double* from) { return load(from); }
Vector<double> load_doubles(const float* from) {
  return __builtin_convertvector((load_as<Vector<float, kNativeVectorBytes / 2>>(from)), Vector<double>);
}

template <class T>
double sum_squares_of_block(const T* x, std::int64_t count) {
  constexpr std::int64_t kSums = 8;  // so many additions are on their way at once
  Vector<double> sums[kSums] = {};
  std::int64_t i = 0;
  for (; i + kSums * kLanes<double> <= count; i += kSums * kLanes<double>) {
#pragma GCC unroll 8
    for (std::int64_t k = 0; k < kSums; ++k) {
      const T* from = x + i + k * kLanes<double>;
      prefetch_ahead(from);
      const Vector<double> value = load_doubles(from);
      sums[k] += value * value;
    }
  }
  for (std::int64_t k = 1; k < kSums; ++k) sums[0] += sums[k];
  double sum = sum_of_lanes(sums[0]);
  for (; i < count; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

/// In f64 whatever T is, by blocks that do not depend on the threads.
template <class T>
double sum_squares(const T* x, double* partial, std::int64_t count) {
  const std::int64_t blocks = blocks_of(count);
  parallel_ranges(blocks, 1, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t block = begin; block < end; ++block)
      partial[block] = sum_squares_of_block(x + block * kBlock, std::min(kBlock, count - block * kBlock));
  });
  double total = 0;
  for (std::int64_t block = 0; block < blocks; ++block) total += partial[block];
  return total;
}

/// `keep(i, weights, count)` is given the new weights from the i-th on, the first `count` of the vector.
template <class T, class Keep>
void adamw(T* weight, const T* grad, T* m, T* v, std::int64_t count, const AdamWStep<T>& step, const Keep& keep) {
  parallel_ranges(count, 4096, [=](std::int64_t begin, std::int64_t end) {
    std::int64_t i = begin;
    for (; i + kLanes<T> <= end; i += kLanes<T>) {
      for (const T* operand : {static_cast<const T*>(weight), grad, static_cast<const T*>(m), static_cast<const T*>(v)})
        prefetch_ahead(operand + i);
      Vector<T> w = load(weight + i), first = load(m + i), second = load(v + i);
      adamw_element(w, load(grad + i), first, second, step);
      store(weight + i, w);
      keep(i, w, kLanes<T>);
      store(m + i, first);
      store(v + i, second);
    }
    if (const std::int64_t size = end - i; size > 0) {
      Vector<T> w = load_part(weight + i, size), first = load_part(m + i, size), second = load_part(v + i, size);
      adamw_element(w, load_part(grad + i, size), first, second, step);
      store_part(weight + i, w, size);
      keep(i, w, size);
      store_part(m + i, first, size);
      store_part(v + i, second, size);
    }
  });
}

}  // namespace

std::int64_t workspace_bytes(const SumSquares&, OpTypes inputs, OpTypes) {
  std::int64_t blocks = 0;
  for (const ValueType& input : inputs) blocks = std::max(blocks, blocks_of(input.shape.elements()));
  return blocks * size_of(DType::f64);
}

void run(const SumSquares&, const KernelArguments& arguments) {
  double* partial = reinterpret_cast<double*>(arguments.workspace);
  double total = 0;
  for (const Tensor& x : arguments.inputs)
    total += dispatch_float(x.dtype, [&]<class T>(T) { return sum_squares(x.as<T>(), partial, x.elements()); });
  arguments.outputs[0].as<double>()[0] = total;
}

void run(const Clip& op, const KernelArguments& arguments) {
  const bool scaled = op.loss_scaling() == Clip::LossScaling::on;
  clip(arguments.inputs[0].as<double>()[0], arguments.inputs[1].as<double>(),
       scaled ? arguments.inputs[2].as<double>() : nullptr, op.max_norm(), arguments.outputs[0].as<double>());
}

void run(const AdamW& op, const KernelArguments& arguments) {
  const auto inputs = arguments.inputs, outputs = arguments.outputs;
  const std::size_t n = op.weights();
  const auto update = [&]<class T>(T, const auto& keep_of) {
    const auto step = adamw_step<T>(op.options(), inputs[4 * n].as<double>(), inputs[4 * n + 1].as<double>());
    for (std::size_t i = 0; i < n; ++i)
      adamw(outputs[i].as<T>(), inputs[n + i].as<T>(), outputs[n + i].as<T>(), outputs[2 * n + i].as<T>(),
            outputs[i].elements(), step, keep_of(i));
  };
  if (op.working_copy() == AdamW::WorkingCopy::none)
    return dispatch_float(outputs[0].dtype,
                          [&](auto zero) { update(zero, [](std::size_t) { return [](auto...) {}; }); });
  dispatch_half(outputs[3 * n].dtype, [&]<class Half>(Half) {
    update(float{}, [&](std::size_t tensor) {
      return [to = outputs[3 * n + tensor].as<Half>()](std::int64_t i, Vector<float> weights, std::int64_t count) {
        if (count == kLanes<float>) return store_narrow(to + i, weights);
        for (std::int64_t lane = 0; lane < count; ++lane) to[i + lane] = Half(weights[lane]);
      };
    });
  });
}

}  // namespace annulus
