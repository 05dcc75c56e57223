#include <cmath>

#include "runtime/cpu/kernels.h"
#include "runtime/cpu/parallel.h"

namespace annulus {
namespace {

constexpr std::int64_t kBlock = 65536;

std::int64_t blocks_of(std::int64_t count) { return (count + kBlock - 1) / kBlock; }

/// In f64 whatever T is, by blocks that do not depend on the threads.
template <class T>
double sum_squares(const T* x, double* partial, std::int64_t count) {
  const std::int64_t blocks = blocks_of(count);
  parallel_ranges(blocks, 1, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t block = begin; block < end; ++block) {
      double sum = 0;
      const std::int64_t last = std::min((block + 1) * kBlock, count);
#pragma omp simd reduction(+ : sum)
      for (std::int64_t i = block * kBlock; i < last; ++i) {
        const double value = static_cast<double>(x[i]);
        sum += value * value;
      }
      partial[block] = sum;
    }
  });
  double total = 0;
  for (std::int64_t block = 0; block < blocks; ++block) total += partial[block];
  return total;
}

/// What one step of AdamW needs, in the type of the weights.
template <class T>
struct AdamWStep {
  T gradient_factor, beta1, complement1, beta2, complement2, rate, inverse_correction1, root_inverse_correction2,
      epsilon, decay;
};

/// Loshchilov & Hutter 2019, as torch.optim.AdamW: decay, then the bias-corrected step.
template <class T>
void adamw(T* weight, const T* grad, T* m, T* v, std::int64_t count, const AdamWStep<T>& step) {
  parallel_ranges(count, 4096, [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) {
      const T g = grad[i] * step.gradient_factor;
      const T first = step.beta1 * m[i] + step.complement1 * g;
      const T second = step.beta2 * v[i] + step.complement2 * g * g;
      m[i] = first;
      v[i] = second;
      const T root = std::sqrt(second) * step.root_inverse_correction2 + step.epsilon;
      weight[i] -= step.rate * (first * step.inverse_correction1 / root + step.decay * weight[i]);
    }
  });
}

}  // namespace

std::int64_t workspace_bytes(const SumSquares&, OpTypes inputs, OpTypes) {
  return blocks_of(inputs[0].shape.elements()) * size_of(DType::f64);
}

void run(const SumSquares&, const KernelArguments& arguments) {
  const Tensor& x = arguments.inputs[0];
  double* partial = reinterpret_cast<double*>(arguments.workspace);
  arguments.outputs[0].as<double>()[0] =
      dispatch_float(x.dtype, [&]<class T>(T) { return sum_squares(x.as<T>(), partial, x.elements()); });
}

void run(const Clip& op, const KernelArguments& arguments) {
  const double squares = arguments.inputs[0].as<double>()[0];
  const double* sums = arguments.inputs[1].as<double>();
  double* out = arguments.outputs[0].as<double>();
  const double norm = std::sqrt(squares) / sums[1];
  const double factor = op.max_norm() > 0 ? std::min(1.0, op.max_norm() / (norm + 1e-6)) : 1.0;
  out[0] = factor / sums[1];
  out[1] = norm;
  out[2] = sums[0] / sums[1];
  out[3] = sums[1];
}

void run(const AdamW& op, const KernelArguments& arguments) {
  const Tensor &weight = arguments.outputs[0], &m = arguments.outputs[1], &v = arguments.outputs[2];
  const Tensor& grad = arguments.inputs[1];
  const double clip = arguments.inputs[4].as<double>()[0];
  const double* hyper = arguments.inputs[5].as<double>();
  const AdamW::Options& options = op.options();
  dispatch_float(weight.dtype, [&]<class T>(T) {
    const AdamWStep<T> step{.gradient_factor = static_cast<T>(clip),
                            .beta1 = static_cast<T>(options.beta1),
                            .complement1 = static_cast<T>(1 - options.beta1),
                            .beta2 = static_cast<T>(options.beta2),
                            .complement2 = static_cast<T>(1 - options.beta2),
                            .rate = static_cast<T>(hyper[0]),
                            .inverse_correction1 = static_cast<T>(1 / hyper[1]),
                            .root_inverse_correction2 = static_cast<T>(1 / std::sqrt(hyper[2])),
                            .epsilon = static_cast<T>(options.epsilon),
                            .decay = static_cast<T>(options.weight_decay)};
    adamw(weight.as<T>(), grad.as<T>(), m.as<T>(), v.as<T>(), weight.elements(), step);
  });
}

}  // namespace annulus
