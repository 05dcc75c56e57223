#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/core/formulas.h"
#include "runtime/cuda/total.h"
#include "runtime/execute/kernel.h"
#include "runtime/ops/cross_entropy.h"

namespace annulus {

/// The logits of one rank, of which the first `valid` columns are real; global ids begin at `offset`.
template <class T>
struct LogitRows {
  using W = Wide<T>;
  static constexpr int kPack = kPackOf<T>;
  const T* logits;
  std::int64_t columns, valid, offset;
  bool packed;  ///< rows begin aligned

  LogitRows(const Tensor& tensor, const VocabularyShard& shard)
      : logits(tensor.as<T>()),
        columns(tensor.shape.columns()),
        valid(std::clamp<std::int64_t>(shard.vocabulary - shard.offset, 0, columns)),
        offset(shard.offset),
        packed(columns % kPack == 0 && aligned<kPack>(logits)) {}
  ANNULUS_BODY const T* row(std::int64_t i) const { return logits + i * columns; }
  /// Whether this rank has the column of `target`, counted from its first.
  ANNULUS_BODY bool owns(std::int64_t target) const { return target >= 0 && target < valid; }
  Grid grid(const Shape& shape) const { return {shape.rows(), reduction_bytes<W>(), walk_threads(columns, kPack)}; }
};

/// One block a row.
template <class T>
struct RowMaxBody {
  using W = Wide<T>;
  LogitRows<T> rows;
  W* largest;

  template <class Block>
  ANNULUS_BODY void operator()(Block& block) const {
    const T* from = rows.row(block.index());
    constexpr W kLowest = -std::numeric_limits<W>::infinity();
    W value = kLowest;
    walk<LogitRows<T>::kPack>(block, rows.valid, rows.packed, [&]<int N>(Width<N>, std::int64_t j) {
      const auto logits = load_pack<N>(from + j);
      ANNULUS_UNROLL
      for (int k = 0; k < N; ++k) value = LargerValue()(logits[k], value);
    });
    value = reduce_block(block, value, kLowest, LargerValue());
    if (block.thread() == 0) largest[block.index()] = value;
  }
};

template <class T>
struct RowSumExpBody {
  using W = Wide<T>;
  LogitRows<T> rows;
  const W* largest;
  W* sums;

  template <class Block>
  ANNULUS_BODY void operator()(Block& block) const {
    const T* from = rows.row(block.index());
    const W most = largest[block.index()];
    W sum = 0;
    walk<LogitRows<T>::kPack>(block, rows.valid, rows.packed, [&]<int N>(Width<N>, std::int64_t j) {
      const auto logits = load_pack<N>(from + j);
      sum += sum_of(make_pack<N>([&](int k) { return exponential(logits[k] - most); }));
    });
    sum = reduce_block(block, sum, W(0), AddValues());
    if (block.thread() == 0) sums[block.index()] = sum;
  }
};

template <class T>
struct RowTargetElement {
  LogitRows<T> rows;
  const std::int32_t* targets;
  Wide<T>* values;

  ANNULUS_BODY void operator()(std::int64_t row) const {
    const std::int64_t target = targets[row] - rows.offset;
    values[row] = rows.owns(target) ? widened(rows.row(row)[target]) : Wide<T>(0);
  }
};

/// One pass: every thread sums relative to the largest that it has met (Milakov and Gimelshein, arXiv 1805.02867).
template <class T>
struct RowSoftmaxBody {
  using W = Wide<T>;
  RowTargetElement<T> of_target;
  W *largest, *sums;

  template <class Block>
  ANNULUS_BODY void operator()(Block& block) const {
    const LogitRows<T>& rows = of_target.rows;
    const T* from = rows.row(block.index());
    constexpr W kLowest = -std::numeric_limits<W>::infinity();
    W most = kLowest, sum = 0;
    walk<LogitRows<T>::kPack>(block, rows.valid, rows.packed, [&]<int N>(Width<N>, std::int64_t j) {
      const auto logits = load_pack<N>(from + j);
      W met = most;
      ANNULUS_UNROLL
      for (int k = 0; k < N; ++k) met = LargerValue()(logits[k], met);
      const W reference = softmax_reference(met);
      sum = sum * rescaled(most, met) + sum_of(make_pack<N>([&](int k) { return exponential(logits[k] - reference); }));
      most = met;
    });
    const W of_row = reduce_block(block, most, kLowest, LargerValue());
    sum = reduce_block(block, sum * rescaled(most, of_row), W(0), AddValues());
    if (block.thread() != 0) return;
    largest[block.index()] = of_row;
    sums[block.index()] = sum;
    of_target(block.index());
  }

 private:
  /// What a sum relative to `from` is multiplied with to be one relative to `to`.
  ANNULUS_BODY static W rescaled(W from, W to) { return from == to ? W(1) : exponential(from - to); }
};

/// The loss of the rows, and their weights.
template <class W>
struct NllTerms {
  static constexpr int kSums = 2, kPack = kPackOf<W>;
  const W *sum_exp, *largest, *target_logit, *weights;

  template <int N>
  ANNULUS_BODY void add(std::int64_t row, double* sums) const {
    const auto weight = load_pack<N>(weights + row), sum = load_pack<N>(sum_exp + row),
               most = load_pack<N>(largest + row), target = load_pack<N>(target_logit + row);
    ANNULUS_UNROLL
    for (int k = 0; k < N; ++k) {
      if (weight[k] == 0) continue;
      const double log_sum = std::log(static_cast<double>(sum[k])) + static_cast<double>(most[k]);
      sums[0] += static_cast<double>(weight[k]) * (log_sum - static_cast<double>(target[k]));
      sums[1] += static_cast<double>(weight[k]);
    }
  }
};

/// Over the logits' own memory.
template <class T>
struct NllGradBody {
  using W = Wide<T>;
  LogitRows<T> rows;
  const W *sum_exp, *largest, *weights;
  const std::int32_t* targets;
  T* gradient;

  template <class Block>
  ANNULUS_BODY void operator()(Block& block) const {
    const std::int64_t row = block.index(), target = targets[row] - rows.offset;
    const W weight = weights[row], scale = weight / sum_exp[row], most = largest[row];
    const T* from = rows.row(row);
    walk<LogitRows<T>::kPack>(block, rows.columns, rows.packed, [&]<int N>(Width<N>, std::int64_t j) {
      const auto logits = load_pack<N>(from + j);
      store_pack(gradient + row * rows.columns + j, make_pack<N>([&](int k) {
                   const W probability = j + k < rows.valid ? scaled_probability(logits[k], most, scale) : W(0);
                   return rows.owns(target) && j + k == target ? probability - weight : probability;
                 }));
    });
  }
};

template <class Launcher>
void launch(const RowMax& op, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor& logits = arguments.inputs[0];
  dispatch_stored(logits.dtype, [&]<class T>(T) {
    const LogitRows<T> rows(logits, op.shard());
    launcher(rows.grid(logits.shape), RowMaxBody<T>{rows, arguments.outputs[0].as<Wide<T>>()});
  });
}

template <class Launcher>
void launch(const RowSumExp& op, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor& logits = arguments.inputs[0];
  dispatch_stored(logits.dtype, [&]<class T>(T) {
    const LogitRows<T> rows(logits, op.shard());
    launcher(rows.grid(logits.shape),
             RowSumExpBody<T>{rows, arguments.inputs[1].as<Wide<T>>(), arguments.outputs[0].as<Wide<T>>()});
  });
}

template <class Launcher>
void launch(const RowTarget& op, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor& logits = arguments.inputs[0];
  dispatch_stored(logits.dtype, [&]<class T>(T) {
    for_each(launcher, logits.shape.rows(),
             RowTargetElement<T>{
                 {logits, op.shard()}, arguments.inputs[1].as<std::int32_t>(), arguments.outputs[0].as<Wide<T>>()});
  });
}

template <class Launcher>
void launch(const RowSoftmax& op, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor& logits = arguments.inputs[0];
  dispatch_stored(logits.dtype, [&]<class T>(T) {
    const LogitRows<T> rows(logits, op.shard());
    const RowTargetElement<T> of_target{rows, arguments.inputs[1].as<std::int32_t>(),
                                        arguments.outputs[2].as<Wide<T>>()};
    launcher(rows.grid(logits.shape),
             RowSoftmaxBody<T>{of_target, arguments.outputs[0].as<Wide<T>>(), arguments.outputs[1].as<Wide<T>>()});
  });
}

inline std::int64_t device_workspace_bytes(const Nll&, OpDefinition::Types inputs, OpDefinition::Types) {
  TensorList<NllTerms<float>, 1> list;
  list.append({}, inputs[5].shape.elements(), false);
  return total_bytes(std::vector{list});
}

template <class Launcher>
void launch(const Nll&, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor& weights = arguments.inputs[5];
  dispatch_float(weights.dtype, [&]<class W>(W) {
    const NllTerms<W> terms{arguments.inputs[1].as<W>(), arguments.inputs[2].as<W>(), arguments.inputs[3].as<W>(),
                            weights.as<W>()};
    const bool packed = aligned<terms.kPack>(terms.sum_exp, terms.largest, terms.target_logit, terms.weights);
    TensorList<NllTerms<W>, 1> list;
    list.append(terms, weights.elements(), packed);
    total(launcher, std::vector{list}, arguments.workspace, arguments.outputs[0].as<double>());
  });
}

template <class Launcher>
void launch(const NllGrad& op, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor& logits = arguments.outputs[0];
  dispatch_stored(logits.dtype, [&]<class T>(T) {
    const LogitRows<T> rows(logits, op.shard());
    launcher(rows.grid(logits.shape),
             NllGradBody<T>{rows, arguments.inputs[1].as<Wide<T>>(), arguments.inputs[2].as<Wide<T>>(),
                            arguments.inputs[4].as<Wide<T>>(), arguments.inputs[3].as<std::int32_t>(), logits.as<T>()});
  });
}

}  // namespace annulus
