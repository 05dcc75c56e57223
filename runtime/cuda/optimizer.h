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
struct AdamWPart {
  static constexpr int kPack = kPackOf<T>;
  T *weight, *first_moment, *second_moment;
  const T* gradient;
  Copy* copy;  ///< may be null

  template <int N>
  ANNULUS_BODY void update(std::int64_t i, const AdamWStep<T>& step) const {
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
  TensorList<AdamWPart<T, Copy>> list;
  AdamW::Options options;
  const double *clip, *hyper;
  std::int64_t blocks;

  template <class Block>
  ANNULUS_BODY void operator()(Block& block) const {
    AdamWStep<T>* const shared = reinterpret_cast<AdamWStep<T>*>(block.shared());
    if (block.thread() == 0) *shared = adamw_step<T>(options, clip, hyper);
    block.sync();
    const AdamWStep<T> step = *shared;
    list.walk_chunks(block, blocks, [&]<int N>(const AdamWPart<T, Copy>& part, Width<N>, std::int64_t i) {
      part.template update<N>(i, step);
    });
  }
};

inline std::int64_t device_workspace_bytes(const SumSquares&, OpDefinition::Types inputs, OpDefinition::Types) {
  using List = TensorList<SquareTerms<float>>;
  return total_bytes(lists_of<List>(
      inputs.size(), [&](List& list, std::size_t i) { list.append({}, inputs[i].shape.elements(), false); }));
}

template <class Launcher>
void launch(const SumSquares&, const KernelArguments& arguments, const Launcher& launcher) {
  dispatch_stored(arguments.inputs[0].dtype, [&]<class T>(T) {
    using List = TensorList<SquareTerms<T>>;
    const auto lists = lists_of<List>(arguments.inputs.size(), [&](List& list, std::size_t i) {
      const Tensor& x = arguments.inputs[i];
      list.append({x.as<T>()}, x.elements(), aligned<kPackOf<T>>(x.as<T>()));
    });
    total(launcher, lists, arguments.workspace, arguments.outputs[0].as<double>());
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
  const std::size_t n = op.weights();
  const bool copies = op.working_copy() == AdamW::WorkingCopy::rounded;
  dispatch_float(outputs[0].dtype, [&]<class T>(T) {
    dispatch_stored(copies ? outputs[3 * n].dtype : outputs[0].dtype, [&]<class Copy>(Copy) {
      if constexpr (kIsHalf<Copy> || std::is_same_v<Copy, T>) {
        using Part = AdamWPart<T, Copy>;
        const auto append = [&](TensorList<Part>& list, std::size_t i) {
          const Part part{outputs[i].as<T>(), outputs[n + i].as<T>(), outputs[2 * n + i].as<T>(), inputs[n + i].as<T>(),
                          copies ? outputs[3 * n + i].as<Copy>() : nullptr};
          list.append(
              part, outputs[i].elements(),
              aligned<Part::kPack>(part.weight, part.first_moment, part.second_moment, part.gradient, part.copy));
        };
        for (const TensorList<Part>& list : lists_of<TensorList<Part>>(n, append)) {
          const std::int64_t blocks = std::min(list.chunks(), launcher.blocks_at_once());
          launcher({blocks, sizeof(AdamWStep<T>)}, AdamWBody<T, Copy>{list, op.options(), inputs[4 * n].as<double>(),
                                                                      inputs[4 * n + 1].as<double>(), blocks});
        }
      }
    });
  });
}

}  // namespace annulus
