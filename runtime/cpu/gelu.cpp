#include "runtime/core/formulas.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/parallel.h"
#include "runtime/cpu/vector_loops.h"

namespace annulus {
namespace {

constexpr std::int64_t kGrain = 4096;

template <class Form, class T>
void gelu(const T* x, T* y, std::int64_t count) {
  parallel_ranges(count, kGrain, [=](std::int64_t begin, std::int64_t end) {
    transform(
        y + begin, end - begin, [](Vector<T> at) { return Form::value(at); }, x + begin);
  });
}

template <class Form, class T>
void gelu_grad(const T* x, const T* dy, T* dx, std::int64_t count) {
  parallel_ranges(count, kGrain, [=](std::int64_t begin, std::int64_t end) {
    const auto slope = [](Vector<T> at, Vector<T> dy_at) { return dy_at * Form::slope(at); };
    transform(dx + begin, end - begin, slope, x + begin, dy + begin);
  });
}

}  // namespace

void run(const Gelu& op, const KernelArguments& arguments) {
  const Tensor &x = arguments.inputs[0], &y = arguments.outputs[0];
  dispatch_float(y.dtype, [&]<class T>(T) {
    switch (op.activation()) {
      case Activation::gelu_tanh:
        return gelu<TanhGelu>(x.as<T>(), y.as<T>(), y.elements());
      case Activation::gelu_erf:
        return gelu<ErfGelu>(x.as<T>(), y.as<T>(), y.elements());
    }
  });
}

void run(const GeluGrad& op, const KernelArguments& arguments) {
  const Tensor &x = arguments.inputs[0], &dy = arguments.inputs[1], &dx = arguments.outputs[0];
  dispatch_float(dx.dtype, [&]<class T>(T) {
    switch (op.activation()) {
      case Activation::gelu_tanh:
        return gelu_grad<TanhGelu>(x.as<T>(), dy.as<T>(), dx.as<T>(), dx.elements());
      case Activation::gelu_erf:
        return gelu_grad<ErfGelu>(x.as<T>(), dy.as<T>(), dx.as<T>(), dx.elements());
    }
  });
}

}  // namespace annulus
