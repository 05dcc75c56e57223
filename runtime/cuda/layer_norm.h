#pragma once

#include <cmath>

#include "runtime/core/formulas.h"
#include "runtime/cuda/column_sums.h"
#include "runtime/ops/layer_norm.h"

namespace annulus {

/// One block a row.
template <class T>
struct LayerNormBody {
  const T *x, *gamma, *beta;
  T *y, *statistics;
  std::int64_t width;
  T epsilon;

  template <class Block>
  ANNULUS_BODY void operator()(Block& block) const {
    const std::int64_t row = block.index();
    const T* from = x + row * width;
    T sum = 0;
    for (std::int64_t j = block.thread(); j < width; j += block.threads()) sum += from[j];
    const T mean = reduce_block(block, sum, T(0), AddValues()) / static_cast<T>(width);
    T squares = 0;
    for (std::int64_t j = block.thread(); j < width; j += block.threads())
      squares += (from[j] - mean) * (from[j] - mean);
    const T variance = reduce_block(block, squares, T(0), AddValues()) / static_cast<T>(width);
    const RowStatistics<T> found{mean, T(1) / std::sqrt(variance + epsilon)};
    for (std::int64_t j = block.thread(); j < width; j += block.threads()) {
      y[row * width + j] = normalized(from[j], found) * gamma[j] + beta[j];
    }
    if (block.thread() != 0) return;
    statistics[2 * row] = mean;
    statistics[2 * row + 1] = found.inverse;
  }
};

template <class T>
struct LayerNormGradBody {
  const T *x, *gamma, *statistics, *dy;
  T* dx;
  std::int64_t width;

  template <class Block>
  ANNULUS_BODY void operator()(Block& block) const {
    const std::int64_t row = block.index(), at = row * width;
    const RowStatistics<T> known{statistics[2 * row], statistics[2 * row + 1]};
    T sum = 0, projected = 0;
    for (std::int64_t j = block.thread(); j < width; j += block.threads()) {
      const T slope = dy[at + j] * gamma[j];
      sum += slope;
      projected += slope * normalized(x[at + j], known);
    }
    sum = reduce_block(block, sum, T(0), AddValues()) / static_cast<T>(width);
    projected = reduce_block(block, projected, T(0), AddValues()) / static_cast<T>(width);
    for (std::int64_t j = block.thread(); j < width; j += block.threads()) {
      dx[at + j] = layer_norm_slope(x[at + j], dy[at + j] * gamma[j], known, sum, projected);
    }
  }
};

/// dgamma and dbeta.
template <class T>
struct LayerNormGradTerms {
  static constexpr int kSums = 2;
  const T *x, *statistics, *dy;
  std::int64_t width;
  ANNULUS_BODY void add(std::int64_t row, std::int64_t column, T* sums) const {
    const T slope = dy[row * width + column];
    sums[0] += slope * normalized(x[row * width + column], {statistics[2 * row], statistics[2 * row + 1]});
    sums[1] += slope;
  }
};

template <class Launcher>
void launch(const LayerNorm& op, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor &x = arguments.inputs[0], &y = arguments.outputs[0];
  dispatch_float(y.dtype, [&]<class T>(T) {
    launcher({x.shape.rows(), reduction_bytes<T>()},
             LayerNormBody<T>{x.as<T>(), arguments.inputs[1].as<T>(), arguments.inputs[2].as<T>(), y.as<T>(),
                              arguments.outputs[1].as<T>(), x.shape.columns(), static_cast<T>(op.epsilon())});
  });
}

inline std::int64_t device_workspace_bytes(const LayerNormGrad&, OpDefinition::Types inputs, OpDefinition::Types) {
  const Shape& shape = inputs[0].shape;
  return 2 * column_sum_parts(shape.rows()) * shape.columns() * size_of(inputs[0].dtype);
}

template <class Launcher>
void launch(const LayerNormGrad&, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor &x = arguments.inputs[0], &dx = arguments.outputs[0];
  const std::int64_t rows = x.shape.rows(), width = x.shape.columns();
  dispatch_float(dx.dtype, [&]<class T>(T) {
    const T *gamma = arguments.inputs[1].as<T>(), *statistics = arguments.inputs[2].as<T>();
    const T* dy = arguments.inputs[3].as<T>();
    launcher({rows, reduction_bytes<T>()}, LayerNormGradBody<T>{x.as<T>(), gamma, statistics, dy, dx.as<T>(), width});
    column_sums<T>(launcher, LayerNormGradTerms<T>{x.as<T>(), statistics, dy, width}, rows, width, arguments,
                   {nullptr, {arguments.outputs[1].as<T>(), arguments.outputs[2].as<T>()}, 0, 0});
  });
}

}  // namespace annulus
