#pragma once

#include "runtime/core/formulas.h"
#include "runtime/cuda/block.h"
#include "runtime/execute/kernel.h"
#include "runtime/ops/collectives.h"
#include "runtime/ops/elementwise.h"

namespace annulus {

/// y = a + b.
template <class T>
struct AddElement {
  const T *a, *b;
  T* y;
  ANNULUS_BODY void operator()(std::int64_t i) const { y[i] = a[i] + b[i]; }
};

/// y = x + bias of the column.
template <class T>
struct AddBiasElement {
  const T *x, *bias;
  T* y;
  std::int64_t columns;
  ANNULUS_BODY void operator()(std::int64_t i) const { y[i] = x[i] + bias[i % columns]; }
};

/// y = Form(x).
template <class Form, class T>
struct ActivationElement {
  const T* x;
  T* y;
  ANNULUS_BODY void operator()(std::int64_t i) const { y[i] = Form::value(x[i]); }
};

/// dx = Form'(x) dy.
template <class Form, class T>
struct ActivationGradElement {
  const T *x, *dy;
  T* dx;
  ANNULUS_BODY void operator()(std::int64_t i) const { dx[i] = Form::slope(x[i]) * dy[i]; }
};

/// Calls `function(Form{})` with the formulas of the activation.
template <class Function>
void with_activation(Activation activation, const Function& function) {
  switch (activation) {
    case Activation::gelu_tanh:
      return function(TanhGelu());
    case Activation::gelu_erf:
      return function(ErfGelu());
  }
}

template <class T>
struct ZeroElement {
  T* y;
  ANNULUS_BODY void operator()(std::int64_t i) const { y[i] = T(0); }
};

/// Part `index` of `parts` of every row; 4-byte words.
struct SliceWord {
  const std::uint32_t* x;
  std::uint32_t* y;
  std::int64_t row_words, part_words, first;
  ANNULUS_BODY void operator()(std::int64_t i) const { y[i] = x[i / part_words * row_words + first + i % part_words]; }
};

template <class Launcher>
void launch(const Add&, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor &a = arguments.inputs[0], &b = arguments.inputs[1], &y = arguments.outputs[0];
  dispatch_float(y.dtype, [&]<class T>(T) {
    for_each(launcher, y.elements(), AddElement<T>{a.as<T>(), b.as<T>(), y.as<T>()});
  });
}

template <class Launcher>
void launch(const Accumulate&, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor &sum = arguments.outputs[0], &x = arguments.inputs[1];
  dispatch_float(sum.dtype, [&]<class T>(T) {
    for_each(launcher, sum.elements(), AddElement<T>{sum.as<T>(), x.as<T>(), sum.as<T>()});
  });
}

template <class Launcher>
void launch(const Zero&, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor& y = arguments.outputs[0];
  dispatch_float(y.dtype, [&]<class T>(T) { for_each(launcher, y.elements(), ZeroElement<T>{y.as<T>()}); });
}

template <class Launcher>
void launch(const AddBias&, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor &x = arguments.inputs[0], &bias = arguments.inputs[1], &y = arguments.outputs[0];
  dispatch_float(y.dtype, [&]<class T>(T) {
    for_each(launcher, y.elements(), AddBiasElement<T>{x.as<T>(), bias.as<T>(), y.as<T>(), x.shape.columns()});
  });
}

template <class Launcher>
void launch(const Gelu& op, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor &x = arguments.inputs[0], &y = arguments.outputs[0];
  dispatch_float(y.dtype, [&]<class T>(T) {
    with_activation(op.activation(), [&]<class Form>(Form) {
      for_each(launcher, y.elements(), ActivationElement<Form, T>{x.as<T>(), y.as<T>()});
    });
  });
}

template <class Launcher>
void launch(const GeluGrad& op, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor &x = arguments.inputs[0], &dy = arguments.inputs[1], &dx = arguments.outputs[0];
  dispatch_float(dx.dtype, [&]<class T>(T) {
    with_activation(op.activation(), [&]<class Form>(Form) {
      for_each(launcher, dx.elements(), ActivationGradElement<Form, T>{x.as<T>(), dy.as<T>(), dx.as<T>()});
    });
  });
}

template <class Launcher>
void launch(const Slice& op, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor &x = arguments.inputs[0], &y = arguments.outputs[0];
  constexpr std::int64_t kWord = sizeof(std::uint32_t);
  const std::int64_t row_words = x.shape.elements(op.dim(), x.shape.rank()) * size_of(x.dtype) / kWord;
  const std::int64_t part_words = row_words / op.parts();
  for_each(launcher, y.bytes() / kWord,
           SliceWord{reinterpret_cast<const std::uint32_t*>(x.data), reinterpret_cast<std::uint32_t*>(y.data),
                     row_words, part_words, op.index() * part_words});
}

}  // namespace annulus
