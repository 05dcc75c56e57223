#include "runtime/core/math.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/parallel.h"

namespace annulus {
namespace {

constexpr std::int64_t kGrain = 4096;

/// x/2 (1 + tanh u) is x logistic(2u), with u = sqrt(2 / pi) (x + 0.044715 x^3).
template <class T>
struct TanhGelu {
  static constexpr T kOuter = T(1.59576912160573071176), kInner = T(0.044715);  // 2 sqrt(2 / pi)
  static T value(T x) { return x * logistic(kOuter * (x + kInner * x * x * x)); }
  static T slope(T x) {
    const T s = logistic(kOuter * (x + kInner * x * x * x));
    return s + x * s * (T(1) - s) * (kOuter * (T(1) + 3 * kInner * x * x));
  }
};

/// x Phi(x), Phi the normal distribution function.
template <class T>
struct ErfGelu {
  static constexpr T kRootHalf = T(0.70710678118654752440), kDensity = T(0.39894228040143267794);  // 1 / sqrt(2 pi)
  static T value(T x) { return T(0.5) * x * (T(1) + error_function(x * kRootHalf)); }
  static T slope(T x) {
    return T(0.5) * (T(1) + error_function(x * kRootHalf)) + x * kDensity * exponential(T(-0.5) * x * x);
  }
};

template <class Form, class T>
void gelu(const T* x, T* y, std::int64_t count) {
  parallel_ranges(count, kGrain, [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) y[i] = Form::value(x[i]);
  });
}

template <class Form, class T>
void gelu_grad(const T* x, const T* dy, T* dx, std::int64_t count) {
  parallel_ranges(count, kGrain, [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) dx[i] = dy[i] * Form::slope(x[i]);
  });
}

}  // namespace

void run(const Gelu& op, const KernelArguments& arguments) {
  const Tensor &x = arguments.inputs[0], &y = arguments.outputs[0];
  dispatch_float(y.dtype, [&]<class T>(T) {
    switch (op.activation()) {
      case Activation::gelu_tanh:
        return gelu<TanhGelu<T>>(x.as<T>(), y.as<T>(), y.elements());
      case Activation::gelu_erf:
        return gelu<ErfGelu<T>>(x.as<T>(), y.as<T>(), y.elements());
    }
  });
}

void run(const GeluGrad& op, const KernelArguments& arguments) {
  const Tensor &x = arguments.inputs[0], &dy = arguments.inputs[1], &dx = arguments.outputs[0];
  dispatch_float(dx.dtype, [&]<class T>(T) {
    switch (op.activation()) {
      case Activation::gelu_tanh:
        return gelu_grad<TanhGelu<T>>(x.as<T>(), dy.as<T>(), dx.as<T>(), dx.elements());
      case Activation::gelu_erf:
        return gelu_grad<ErfGelu<T>>(x.as<T>(), dy.as<T>(), dx.as<T>(), dx.elements());
    }
  });
}

}  // namespace annulus
