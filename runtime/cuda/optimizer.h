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

/// `Copy` is how the working copy of the weights is stored, if there is one.
template <class T, class Copy>
struct AdamWElement {
  static constexpr int kPack = kPackOf<T>;
  T *weight, *first_moment, *second_moment;
  const T* gradient;
  Copy* copy;  ///< may be null
  AdamWStep<T> step;

  template <int N>
  ANNULUS_BODY void at(std::int64_t i) const {
    const auto of_gradient = load_pack<N>(gradient + i);
    auto w = load_pack<N>(weight + i), m = load_pack<N>(first_moment + i), v = load_pack<N>(second_moment + i);
    ANNULUS_UNROLL
    for (int k = 0; k < N; ++k) adamw_element(w[k], of_gradient[k], m[k], v[k], step);
    store_pack(weight + i, w);
    store_pack(first_moment + i, m);
    store_pack(second_moment + i, v);
    if (copy == nullptr) return;
    store_pack(copy + i, make_pack<N>([&](int k) { return static_cast<Wide<Copy>>(w[k]); }));
  }
};

/// One thread a block finds what the step needs: learning rate and clipping are known on the device alone, and in f64.
template <class T, class Copy>
struct AdamWBody {
  ForEachPack<AdamWElement<T, Copy>> elements;
  AdamW::Options options;
  const double *clip, *hyper;

  template <class Block>
  ANNULUS_BODY void operator()(Block& block) const {
    AdamWStep<T>* const step = reinterpret_cast<AdamWStep<T>*>(block.shared());
    if (block.thread() == 0) *step = adamw_step<T>(options, clip, hyper);
    block.sync();
    ForEachPack<AdamWElement<T, Copy>> mine = elements;
    mine.element.step = *step;
    mine(block);
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

template <class Launcher>
void launch(const AdamW& op, const KernelArguments& arguments, const Launcher& launcher) {
  const auto inputs = arguments.inputs, outputs = arguments.outputs;
  const Tensor& weight = outputs[0];
  const bool copies = op.working_copy() == AdamW::WorkingCopy::rounded;
  dispatch_float(weight.dtype, [&]<class T>(T) {
    dispatch_stored(copies ? outputs[3].dtype : weight.dtype, [&]<class Copy>(Copy) {
      if constexpr (kIsHalf<Copy> || std::is_same_v<Copy, T>) {
        using Element = AdamWElement<T, Copy>;
        const Element element{weight.as<T>(),
                              outputs[1].as<T>(),
                              outputs[2].as<T>(),
                              inputs[1].as<T>(),
                              copies ? outputs[3].as<Copy>() : nullptr,
                              {}};
        const bool packed = aligned<Element::kPack>(element.weight, element.gradient, element.first_moment,
                                                    element.second_moment, element.copy);
        const ForEachPack<Element> elements = packs_of(launcher, weight.elements(), packed, element);
        launcher({elements.blocks, sizeof(AdamWStep<T>)},
                 AdamWBody<T, Copy>{elements, op.options(), inputs[4].as<double>(), inputs[5].as<double>()});
      }
    });
  });
}

}  // namespace annulus
