#pragma once

#include "runtime/core/formulas.h"
#include "runtime/cuda/total.h"
#include "runtime/execute/kernel.h"
#include "runtime/ops/optimizer.h"

namespace annulus {

template <class T>
struct SquareTerms {
  static constexpr int kSums = 1, kPack = kPackOf<T>;
  const T* x;
  template <int N>
  ANNULUS_BODY void add(std::int64_t i, double* sums) const {
    const auto values = load_pack<N>(x + i);
    sums[0] += sum_of(make_pack<N>([&](int k) {
      const auto value = static_cast<double>(values[k]);
      return value * value;
    }));
  }
};

struct ClipElement {
  const double *squares, *sums, *loss_scale;
  double* out;
  double max_norm;

  ANNULUS_BODY void operator()(std::int64_t) const { clip(*squares, sums, loss_scale, max_norm, out); }
};

/// What the step needs, in the weights' type: learning rate and clipping are known on the device alone, and the other
/// elements shall not work in f64.
template <class T>
struct AdamWStepElement {
  const double *clip, *hyper;
  AdamW::Options options;
  AdamWStep<T>* step;

  ANNULUS_BODY void operator()(std::int64_t) const { *step = adamw_step<T>(options, clip, hyper); }
};

template <class T>
struct AdamWElement {
  static constexpr int kPack = kPackOf<T>;
  T *weight, *first_moment, *second_moment;
  const T* gradient;
  const AdamWStep<T>* step;

  template <int N>
  ANNULUS_BODY void at(std::int64_t i) const {
    const AdamWStep<T> factors = *step;
    const auto of_gradient = load_pack<N>(gradient + i);
    auto w = load_pack<N>(weight + i), m = load_pack<N>(first_moment + i), v = load_pack<N>(second_moment + i);
    ANNULUS_UNROLL
    for (int k = 0; k < N; ++k) adamw_element(w[k], of_gradient[k], m[k], v[k], factors);
    store_pack(weight + i, w);
    store_pack(first_moment + i, m);
    store_pack(second_moment + i, v);
  }
};

inline std::int64_t device_workspace_bytes(const SumSquares&, OpDefinition::Types inputs, OpDefinition::Types) {
  return total_bytes<SquareTerms<float>>(inputs[0].shape.elements());
}

template <class Launcher>
void launch(const SumSquares&, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor& x = arguments.inputs[0];
  dispatch_stored(x.dtype, [&]<class T>(T) {
    total(launcher, SquareTerms<T>{x.as<T>()}, x.elements(), aligned<kPackOf<T>>(x.as<T>()), arguments.workspace,
          arguments.outputs[0].as<double>());
  });
}

template <class Launcher>
void launch(const Clip& op, const KernelArguments& arguments, const Launcher& launcher) {
  for_each(launcher, 1,
           ClipElement{arguments.inputs[0].as<double>(), arguments.inputs[1].as<double>(),
                       op.loss_scaling() == Clip::LossScaling::on ? arguments.inputs[2].as<double>() : nullptr,
                       arguments.outputs[0].as<double>(), op.max_norm()});
}

inline std::int64_t device_workspace_bytes(const AdamW&, OpDefinition::Types, OpDefinition::Types) {
  return sizeof(AdamWStep<double>);
}

template <class Launcher>
void launch(const AdamW& op, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor &weight = arguments.outputs[0], &gradient = arguments.inputs[1];
  const double *clip = arguments.inputs[4].as<double>(), *hyper = arguments.inputs[5].as<double>();
  dispatch_float(weight.dtype, [&]<class T>(T) {
    auto* step = reinterpret_cast<AdamWStep<T>*>(arguments.workspace);
    for_each(launcher, 1, AdamWStepElement<T>{clip, hyper, op.options(), step});
    const AdamWElement<T> element{weight.as<T>(), arguments.outputs[1].as<T>(), arguments.outputs[2].as<T>(),
                                  gradient.as<T>(), step};
    const bool packed =
        aligned<element.kPack>(element.weight, element.gradient, element.first_moment, element.second_moment);
    for_each_pack(launcher, weight.elements(), packed, element);
  });
}

}  // namespace annulus
