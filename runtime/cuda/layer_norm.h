#pragma once

#include <cmath>

#include "runtime/core/formulas.h"
#include "runtime/cuda/column_sums.h"
#include "runtime/ops/layer_norm.h"

namespace annulus {

/// One block a row.
template <class T>
struct LayerNormBody {
  using W = Wide<T>;
  static constexpr int kPack = kPackOf<T>;
  const T *x, *gamma, *beta;
  T* y;
  W* statistics;
  std::int64_t width;
  W epsilon;
  bool packed;

  template <class Block>
  ANNULUS_BODY void operator()(Block& block) const {
    const std::int64_t row = block.index();
    const T* from = x + row * width;
    W sum = 0;
    walk<kPack>(block, width, packed, [&]<int N>(Width<N>, std::int64_t j) { sum += sum_of(load_pack<N>(from + j)); });
    const W mean = reduce_block(block, sum, W(0), AddValues()) / static_cast<W>(width);
    W squares = 0;
    walk<kPack>(block, width, packed, [&]<int N>(Width<N>, std::int64_t j) {
      const auto values = load_pack<N>(from + j);
      squares += sum_of(make_pack<N>([&](int k) { return (values[k] - mean) * (values[k] - mean); }));
    });
    const W variance = reduce_block(block, squares, W(0), AddValues()) / static_cast<W>(width);
    const RowStatistics<W> found{mean, W(1) / std::sqrt(variance + epsilon)};
    walk<kPack>(block, width, packed, [&]<int N>(Width<N>, std::int64_t j) {
      const auto values = load_pack<N>(from + j), scale = load_pack<N>(gamma + j), shift = load_pack<N>(beta + j);
      store_pack(y + row * width + j,
                 make_pack<N>([&](int k) { return normalized(values[k], found) * scale[k] + shift[k]; }));
    });
    if (block.thread() != 0) return;
    statistics[2 * row] = mean;
    statistics[2 * row + 1] = found.inverse;
  }
};

/// Parts of the rows, one block each.
constexpr std::int64_t norm_grad_parts(std::int64_t rows) { return std::clamp<std::int64_t>(rows / 8, 1, 1024); }

/// dx of one part of the rows after the other, and the part's sums of dgamma and dbeta: of each column by the thread
/// that visits it.
template <class T>
struct LayerNormGradBody {
  using W = Wide<T>;
  static constexpr int kPack = kPackOf<T>;
  const T *x, *gamma, *dy;
  const W* statistics;
  T* dx;
  W *dgamma, *dbeta;  ///< [parts, width]
  std::int64_t rows, width, parts;
  bool packed;

  static constexpr std::int64_t shared_bytes(std::int64_t width) {
    return reduction_bytes<W>() + 2 * divide_up(width, kPack) * kPack * static_cast<std::int64_t>(sizeof(W));
  }

  template <class Block>
  ANNULUS_BODY void operator()(Block& block) const {
    const std::int64_t part = block.index();
    W* const gamma_sums = reinterpret_cast<W*>(block.shared() + reduction_bytes<W>());
    W* const beta_sums = gamma_sums + divide_up(width, kPack) * kPack;
    walk<1>(block, 2 * divide_up(width, kPack) * kPack, true, [&](Width<1>, std::int64_t j) { gamma_sums[j] = W(0); });
    block.sync();
    for (std::int64_t row = rows * part / parts; row < rows * (part + 1) / parts; ++row) {
      one_row(block, row, gamma_sums, beta_sums);
    }
    walk<kPack>(block, width, packed, [&]<int N>(Width<N>, std::int64_t j) {
      store_pack(dgamma + part * width + j, load_pack<N>(gamma_sums + j));
      store_pack(dbeta + part * width + j, load_pack<N>(beta_sums + j));
    });
  }

 private:
  template <class Block>
  ANNULUS_BODY void one_row(Block& block, std::int64_t row, W* gamma_sums, W* beta_sums) const {
    const std::int64_t at = row * width;
    const RowStatistics<W> known{statistics[2 * row], statistics[2 * row + 1]};
    W sum = 0, projected = 0;
    walk<kPack>(block, width, packed, [&]<int N>(Width<N>, std::int64_t j) {
      const auto values = load_pack<N>(x + at + j), scale = load_pack<N>(gamma + j), slope = load_pack<N>(dy + at + j);
      auto of_gamma = load_pack<N>(gamma_sums + j), of_beta = load_pack<N>(beta_sums + j);
      ANNULUS_UNROLL
      for (int k = 0; k < N; ++k) {
        const W normal = normalized(values[k], known);
        sum += slope[k] * scale[k];
        projected += slope[k] * scale[k] * normal;
        of_gamma[k] += slope[k] * normal;
        of_beta[k] += slope[k];
      }
      store_pack(gamma_sums + j, of_gamma);
      store_pack(beta_sums + j, of_beta);
    });
    sum = reduce_block(block, sum, W(0), AddValues()) / static_cast<W>(width);
    projected = reduce_block(block, projected, W(0), AddValues()) / static_cast<W>(width);
    walk<kPack>(block, width, packed, [&]<int N>(Width<N>, std::int64_t j) {
      const auto values = load_pack<N>(x + at + j), scale = load_pack<N>(gamma + j), slope = load_pack<N>(dy + at + j);
      store_pack(dx + at + j, make_pack<N>([&](int k) {
                   return layer_norm_slope(values[k], slope[k] * scale[k], known, sum, projected);
                 }));
    });
  }
};

template <class Launcher>
void launch(const LayerNorm& op, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor &x = arguments.inputs[0], &y = arguments.outputs[0];
  const std::int64_t width = x.shape.columns();
  dispatch_stored(y.dtype, [&]<class T>(T) {
    constexpr int kPack = kPackOf<T>;
    const T *gamma = arguments.inputs[1].as<T>(), *beta = arguments.inputs[2].as<T>();
    launcher({x.shape.rows(), reduction_bytes<Wide<T>>(), walk_threads(width, kPack)},
             LayerNormBody<T>{x.as<T>(), gamma, beta, y.as<T>(), arguments.outputs[1].as<Wide<T>>(), width,
                              static_cast<Wide<T>>(op.epsilon()),
                              width % kPack == 0 && aligned<kPack>(x.as<T>(), gamma, beta, y.as<T>())});
  });
}

inline std::int64_t device_workspace_bytes(const LayerNormGrad&, OpDefinition::Types inputs,
                                           OpDefinition::Types outputs) {
  const Shape& shape = inputs[0].shape;
  return 2 * norm_grad_parts(shape.rows()) * shape.columns() * size_of(outputs[1].dtype);
}

template <class Launcher>
void launch(const LayerNormGrad&, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor &x = arguments.inputs[0], &dx = arguments.outputs[0];
  const std::int64_t rows = x.shape.rows(), width = x.shape.columns(), parts = norm_grad_parts(rows);
  dispatch_stored(dx.dtype, [&]<class T>(T) {
    using Body = LayerNormGradBody<T>;
    constexpr int kPack = kPackOf<T>;
    const T *gamma = arguments.inputs[1].as<T>(), *dy = arguments.inputs[3].as<T>();
    Wide<T>* const dgamma = reinterpret_cast<Wide<T>*>(arguments.workspace);
    Wide<T>* const dbeta = dgamma + parts * width;
    const bool packed = width % kPack == 0 && aligned<kPack>(x.as<T>(), gamma, dy, dx.as<T>(), dgamma);
    launcher({parts, Body::shared_bytes(width), walk_threads(width, kPack)},
             Body{x.as<T>(), gamma, dy, arguments.inputs[2].as<Wide<T>>(), dx.as<T>(), dgamma, dbeta, rows, width,
                  parts, packed});
    column_totals(launcher, dgamma, parts, width, arguments.outputs[1].as<Wide<T>>());
    column_totals(launcher, dbeta, parts, width, arguments.outputs[2].as<Wide<T>>());
  });
}

}  // namespace annulus
