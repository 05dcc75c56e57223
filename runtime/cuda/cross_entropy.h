#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/core/formulas.h"
#include "runtime/cuda/block.h"
#include "runtime/execute/kernel.h"
#include "runtime/ops/cross_entropy.h"

namespace annulus {

/// The logits of one rank, of which the first `valid` columns are real; global ids begin at `offset`.
template <class T>
struct LogitRows {
  const T* logits;
  std::int64_t columns, valid, offset;

  LogitRows(const Tensor& tensor, const VocabularyShard& shard)
      : logits(tensor.as<T>()),
        columns(tensor.shape.columns()),
        valid(std::clamp<std::int64_t>(shard.vocabulary - shard.offset, 0, columns)),
        offset(shard.offset) {}
  ANNULUS_BODY const T* row(std::int64_t i) const { return logits + i * columns; }
  /// Whether this rank has the column of `target`, counted from its first.
  ANNULUS_BODY bool owns(std::int64_t target) const { return target >= 0 && target < valid; }
};

/// One block a row.
template <class T>
struct RowMaxBody {
  LogitRows<T> rows;
  T* largest;

  template <class Block>
  ANNULUS_BODY void operator()(Block& block) const {
    const T* from = rows.row(block.index());
    constexpr T kLowest = -std::numeric_limits<T>::infinity();
    T value = kLowest;
    for (std::int64_t j = block.thread(); j < rows.valid; j += block.threads()) {
      value = from[j] > value ? from[j] : value;
    }
    value = reduce_block(block, value, kLowest, LargerValue());
    if (block.thread() == 0) largest[block.index()] = value;
  }
};

template <class T>
struct RowSumExpBody {
  LogitRows<T> rows;
  const T* largest;
  T* sums;

  template <class Block>
  ANNULUS_BODY void operator()(Block& block) const {
    const T *from = rows.row(block.index()), most = largest[block.index()];
    T sum = 0;
    for (std::int64_t j = block.thread(); j < rows.valid; j += block.threads()) sum += exponential(from[j] - most);
    sum = reduce_block(block, sum, T(0), AddValues());
    if (block.thread() == 0) sums[block.index()] = sum;
  }
};

template <class T>
struct RowTargetElement {
  LogitRows<T> rows;
  const std::int32_t* targets;
  T* values;

  ANNULUS_BODY void operator()(std::int64_t row) const {
    const std::int64_t target = targets[row] - rows.offset;
    values[row] = rows.owns(target) ? rows.row(row)[target] : T(0);
  }
};

/// A single block: the order of additions is fixed.
template <class T>
struct NllBody {
  const T *sum_exp, *largest, *target_logit, *weights;
  double* sums;
  std::int64_t rows;

  template <class Block>
  ANNULUS_BODY void operator()(Block& block) const {
    double loss = 0, weight_sum = 0;
    for (std::int64_t row = block.thread(); row < rows; row += block.threads()) {
      const double weight = static_cast<double>(weights[row]);
      if (weight == 0) continue;
      const double log_sum = std::log(static_cast<double>(sum_exp[row])) + static_cast<double>(largest[row]);
      loss += weight * (log_sum - static_cast<double>(target_logit[row]));
      weight_sum += weight;
    }
    loss = reduce_block(block, loss, 0.0, AddValues());
    weight_sum = reduce_block(block, weight_sum, 0.0, AddValues());
    if (block.thread() != 0) return;
    sums[0] = loss;
    sums[1] = weight_sum;
  }
};

/// Over the logits' own memory.
template <class T>
struct NllGradBody {
  LogitRows<T> rows;
  const T *sum_exp, *largest, *weights;
  const std::int32_t* targets;
  T* gradient;

  template <class Block>
  ANNULUS_BODY void operator()(Block& block) const {
    const std::int64_t row = block.index(), target = targets[row] - rows.offset;
    const T weight = weights[row], scale = weight / sum_exp[row], most = largest[row];
    const T* from = rows.row(row);
    for (std::int64_t j = block.thread(); j < rows.columns; j += block.threads()) {
      const T probability = j < rows.valid ? scaled_probability(from[j], most, scale) : T(0);
      gradient[row * rows.columns + j] = rows.owns(j) && j == target ? probability - weight : probability;
    }
  }
};

template <class Launcher>
void launch(const RowMax& op, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor& logits = arguments.inputs[0];
  dispatch_float(logits.dtype, [&]<class T>(T) {
    launcher({logits.shape.rows(), reduction_bytes<T>()},
             RowMaxBody<T>{{logits, op.shard()}, arguments.outputs[0].as<T>()});
  });
}

template <class Launcher>
void launch(const RowSumExp& op, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor& logits = arguments.inputs[0];
  dispatch_float(logits.dtype, [&]<class T>(T) {
    launcher({logits.shape.rows(), reduction_bytes<T>()},
             RowSumExpBody<T>{{logits, op.shard()}, arguments.inputs[1].as<T>(), arguments.outputs[0].as<T>()});
  });
}

template <class Launcher>
void launch(const RowTarget& op, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor& logits = arguments.inputs[0];
  dispatch_float(logits.dtype, [&]<class T>(T) {
    for_each(launcher, logits.shape.rows(),
             RowTargetElement<T>{
                 {logits, op.shard()}, arguments.inputs[1].as<std::int32_t>(), arguments.outputs[0].as<T>()});
  });
}

template <class Launcher>
void launch(const Nll&, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor& weights = arguments.inputs[5];
  dispatch_float(weights.dtype, [&]<class T>(T) {
    launcher({1, reduction_bytes<double>()},
             NllBody<T>{arguments.inputs[1].as<T>(), arguments.inputs[2].as<T>(), arguments.inputs[3].as<T>(),
                        weights.as<T>(), arguments.outputs[0].as<double>(), weights.elements()});
  });
}

template <class Launcher>
void launch(const NllGrad& op, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor& logits = arguments.outputs[0];
  dispatch_float(logits.dtype, [&]<class T>(T) {
    launcher({logits.shape.rows()}, NllGradBody<T>{{logits, op.shard()},
                                                   arguments.inputs[1].as<T>(),
                                                   arguments.inputs[2].as<T>(),
                                                   arguments.inputs[4].as<T>(),
                                                   arguments.inputs[3].as<std::int32_t>(),
                                                   logits.as<T>()});
  });
}

}  // namespace annulus
