#include "runtime/cpu/gelu.h"

#include "runtime/core/formulas.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/parallel.h"
#include "runtime/cpu/vector_loops.h"

namespace annulus {
namespace {

constexpr std::int64_t kGrain = 4096;

template <class Form, class T>
void values(const T* x, T* y, std::int64_t count) {
  transform(
      y, count, [](Vector<T> at) { return Form::value(at); }, x);
}

template <class Form, class T>
void slopes(const T* x, const T* dy, T* dx, std::int64_t count) {
  const auto slope = [](Vector<T> at, Vector<T> dy_at) { return dy_at * Form::slope(at); };
  transform(dx, count, slope, x, dy);
}

}  // namespace

template <class T>
void gelu_elements(Activation activation, const T* x, T* y, std::int64_t count) {
  switch (activation) {
    case Activation::gelu_tanh:
      return values<TanhGelu>(x, y, count);
    case Activation::gelu_erf:
      return values<ErfGelu>(x, y, count);
  }
}

template <class T>
void gelu_grad_elements(Activation activation, const T* x, const T* dy, T* dx, std::int64_t count) {
  switch (activation) {
    case Activation::gelu_tanh:
      return slopes<TanhGelu>(x, dy, dx, count);
    case Activation::gelu_erf:
      return slopes<ErfGelu>(x, dy, dx, count);
  }
}

template void gelu_elements(Activation, const float*, float*, std::int64_t);
template void gelu_elements(Activation, const double*, double*, std::int64_t);
template void gelu_grad_elements(Activation, const float*, const float*, float*, std::int64_t);
template void gelu_grad_elements(Activation, const double*, const double*, double*, std::int64_t);

void run(const Gelu& op, const KernelArguments& arguments) {
  const Tensor &x = arguments.inputs[0], &y = arguments.outputs[0];
  dispatch_float(y.dtype, [&]<class T>(T) {
    parallel_ranges(y.elements(), kGrain, [&](std::int64_t begin, std::int64_t end) {
      gelu_elements(op.activation(), x.as<T>() + begin, y.as<T>() + begin, end - begin);
    });
  });
}

void run(const GeluGrad& op, const KernelArguments& arguments) {
  const Tensor &x = arguments.inputs[0], &dy = arguments.inputs[1], &dx = arguments.outputs[0];
  dispatch_float(dx.dtype, [&]<class T>(T) {
    parallel_ranges(dx.elements(), kGrain, [&](std::int64_t begin, std::int64_t end) {
      gelu_grad_elements(op.activation(), x.as<T>() + begin, dy.as<T>() + begin, dx.as<T>() + begin, end - begin);
    });
  });
}

}  // namespace annulus
