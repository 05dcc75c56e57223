#pragma once

#include "runtime/core/formulas.h"
#include "runtime/cuda/pack.h"
#include "runtime/execute/kernel.h"
#include "runtime/ops/collectives.h"
#include "runtime/ops/elementwise.h"

namespace annulus {

/// y = x + bias of the column.
template <class T>
struct AddBiasElement {
  static constexpr int kPack = kPackOf<T>;
  const T *x, *bias;
  T* y;
  std::int64_t columns;
  template <int N>
  ANNULUS_BODY void at(std::int64_t i) const {
    const auto a = load_pack<N>(x + i), b = load_pack<N>(bias + i % columns);
    store_pack(y + i, make_pack<N>([&](int k) { return a[k] + b[k]; }));
  }
};

template <class Form>
struct ActivationOf {
  template <class V>
  ANNULUS_BODY V operator()(V x) const {
    return Form::value(x);
  }
};
template <class Form>
struct ActivationGradOf {
  template <class V>
  ANNULUS_BODY V operator()(V x, V dy) const {
    return Form::slope(x) * dy;
  }
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
  static constexpr int kPack = kPackOf<T>;
  T* y;
  template <int N>
  ANNULUS_BODY void at(std::int64_t i) const {
    store_pack(y + i, make_pack<N>([](int) { return Wide<T>(0); }));
  }
};
template <class T, class Launcher>
void fill_with_zero(const Launcher& launcher, const Tensor& y) {
  for_each_pack(launcher, y.elements(), aligned<kPackOf<T>>(y.as<T>()), ZeroElement<T>{y.as<T>()});
}

struct CastOf {
  template <class V>
  ANNULUS_BODY V operator()(V x) const {
    return x;
  }
};

/// Bytes that are moved at once, whatever they mean.
template <int kBytes>
struct alignas(kBytes) Word {
  using Unit = std::conditional_t<kBytes == 2, std::uint16_t, std::uint32_t>;  // of bytes, four would go at once
  Unit units[kBytes / static_cast<int>(sizeof(Unit))];
};
/// Calls `function(Word{})` with the widest word that divides all of `bytes`: sizes, offsets, addresses.
template <class Function>
void with_word(std::initializer_list<std::uintptr_t> bytes, const Function& function) {
  std::uintptr_t all = 16;
  for (const std::uintptr_t size : bytes) all |= size;
  if (all % 16 == 0) return function(Word<16>());
  if (all % 4 == 0) return function(Word<4>());
  return function(Word<2>());
}

/// Part `index` of `parts` of every row.
template <class Word>
struct SliceWord {
  const Word* x;
  Word* y;
  std::int64_t row_words, part_words, first;
  ANNULUS_BODY void operator()(std::int64_t i) const { y[i] = x[i / part_words * row_words + first + i % part_words]; }
};

template <class Launcher>
void launch(const Add&, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor &a = arguments.inputs[0], &b = arguments.inputs[1], &y = arguments.outputs[0];
  dispatch_stored(y.dtype, [&]<class T>(T) {
    map_elements(launcher, y.elements(), AddValues(), {a.as<T>(), b.as<T>()}, y.as<T>());
  });
}

template <class Launcher>
void launch(const Accumulate&, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor &x = arguments.inputs[1], &sum = arguments.outputs[0];
  dispatch_stored(sum.dtype, [&]<class T>(T) {
    map_elements(launcher, sum.elements(), AddValues(), {sum.as<T>(), x.as<T>()}, sum.as<T>());
  });
}

template <class Launcher>
void launch(const Zero&, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor& y = arguments.outputs[0];
  dispatch_stored(y.dtype, [&]<class T>(T) { fill_with_zero<T>(launcher, y); });
}

template <class Launcher>
void launch(const Cast&, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor &x = arguments.inputs[0], &y = arguments.outputs[0];
  dispatch_stored(x.dtype, [&]<class From>(From) {
    dispatch_stored(y.dtype,
                    [&]<class To>(To) { map_elements(launcher, y.elements(), CastOf(), {x.as<From>()}, y.as<To>()); });
  });
}

template <class Launcher>
void launch(const AddBias&, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor &x = arguments.inputs[0], &bias = arguments.inputs[1], &y = arguments.outputs[0];
  dispatch_stored(y.dtype, [&]<class T>(T) {
    constexpr int kPack = kPackOf<T>;
    const AddBiasElement<T> element{x.as<T>(), bias.as<T>(), y.as<T>(), x.shape.columns()};
    const bool packed = element.columns % kPack == 0 && aligned<kPack>(element.x, element.bias, element.y);
    for_each_pack(launcher, y.elements(), packed, element);
  });
}

template <class Launcher>
void launch(const Gelu& op, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor &x = arguments.inputs[0], &y = arguments.outputs[0];
  dispatch_stored(y.dtype, [&]<class T>(T) {
    with_activation(op.activation(), [&]<class Form>(Form) {
      map_elements(launcher, y.elements(), ActivationOf<Form>(), {x.as<T>()}, y.as<T>());
    });
  });
}

template <class Launcher>
void launch(const GeluGrad& op, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor &x = arguments.inputs[0], &dy = arguments.inputs[1], &dx = arguments.outputs[0];
  dispatch_stored(dx.dtype, [&]<class T>(T) {
    with_activation(op.activation(), [&]<class Form>(Form) {
      map_elements(launcher, dx.elements(), ActivationGradOf<Form>(), {x.as<T>(), dy.as<T>()}, dx.as<T>());
    });
  });
}

template <class Launcher>
void launch(const Slice& op, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor &x = arguments.inputs[0], &y = arguments.outputs[0];
  const std::int64_t row_bytes = x.shape.elements(op.dim(), x.shape.rank()) * size_of(x.dtype);
  const std::int64_t part_bytes = row_bytes / op.parts();
  with_word({static_cast<std::uintptr_t>(part_bytes), reinterpret_cast<std::uintptr_t>(x.data),
             reinterpret_cast<std::uintptr_t>(y.data)},
            [&]<class Word>(Word) {
              constexpr std::int64_t kBytes = sizeof(Word);
              for_each(launcher, y.bytes() / kBytes,
                       SliceWord<Word>{reinterpret_cast<const Word*>(x.data), reinterpret_cast<Word*>(y.data),
                                       row_bytes / kBytes, part_bytes / kBytes, op.index() * part_bytes / kBytes});
            });
}

}  // namespace annulus
