#pragma once

#include <algorithm>

#include "runtime/core/formulas.h"
#include "runtime/cuda/block.h"
#include "runtime/execute/kernel.h"
#include "runtime/ops/optimizer.h"

namespace annulus {

/// Blocks of a sum of squares; their sums are added in their order.
constexpr std::int64_t square_blocks(std::int64_t count) { return std::clamp<std::int64_t>(count / 4096, 1, 1024); }

/// In f64 whatever T is: every block the elements of its stride.
template <class T>
struct SumSquaresBody {
  const T* x;
  double* sums;
  std::int64_t count, blocks;

  template <class Block>
  ANNULUS_BODY void operator()(Block& block) const {
    double sum = 0;
    for (std::int64_t i = block.index() * block.threads() + block.thread(); i < count; i += blocks * block.threads()) {
      const double value = static_cast<double>(x[i]);
      sum += value * value;
    }
    sum = reduce_block(block, sum, 0.0, AddValues());
    if (block.thread() == 0) sums[block.index()] = sum;
  }
};

/// A single block.
struct SumBody {
  const double* from;
  double* to;
  std::int64_t count;

  template <class Block>
  ANNULUS_BODY void operator()(Block& block) const {
    double sum = 0;
    for (std::int64_t i = block.thread(); i < count; i += block.threads()) sum += from[i];
    sum = reduce_block(block, sum, 0.0, AddValues());
    if (block.thread() == 0) *to = sum;
  }
};

struct ClipElement {
  const double *squares, *sums;
  double* out;
  double max_norm;

  ANNULUS_BODY void operator()(std::int64_t) const { clip(*squares, sums, max_norm, out); }
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
  T *weight, *first_moment, *second_moment;
  const T* gradient;
  const AdamWStep<T>* step;

  ANNULUS_BODY void operator()(std::int64_t i) const {
    adamw_element(weight[i], gradient[i], first_moment[i], second_moment[i], *step);
  }
};

inline std::int64_t device_workspace_bytes(const SumSquares&, OpDefinition::Types inputs, OpDefinition::Types) {
  return square_blocks(inputs[0].shape.elements()) * size_of(DType::f64);
}

template <class Launcher>
void launch(const SumSquares&, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor& x = arguments.inputs[0];
  const std::int64_t blocks = square_blocks(x.elements());
  double* partial = reinterpret_cast<double*>(arguments.workspace);
  dispatch_float(x.dtype, [&]<class T>(T) {
    launcher({blocks, reduction_bytes<double>()}, SumSquaresBody<T>{x.as<T>(), partial, x.elements(), blocks});
  });
  launcher({1, reduction_bytes<double>()}, SumBody{partial, arguments.outputs[0].as<double>(), blocks});
}

template <class Launcher>
void launch(const Clip& op, const KernelArguments& arguments, const Launcher& launcher) {
  for_each(launcher, 1,
           ClipElement{arguments.inputs[0].as<double>(), arguments.inputs[1].as<double>(),
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
    for_each(launcher, weight.elements(),
             AdamWElement<T>{weight.as<T>(), arguments.outputs[1].as<T>(), arguments.outputs[2].as<T>(),
                             gradient.as<T>(), step});
  });
}

}  // namespace annulus
