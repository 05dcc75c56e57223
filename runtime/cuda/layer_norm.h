#pragma once

#include <cmath>

#include "runtime/core/formulas.h"
#include "runtime/cuda/column_sums.h"
#include "runtime/cuda/dropout.h"
#include "runtime/ops/layer_norm.h"

namespace annulus {

/// Rows to be normalised, as they lie there.
template <class T>
struct PlainRows {
  const T* x;
  std::int64_t width;

  template <int N>
  ANNULUS_BODY Pack<Wide<T>, N> at(std::int64_t row, std::int64_t j) const {
    return load_pack<N>(x + row * width + j);
  }
};

/// Rows that are residual + dropout(x + bias), which are written to `sum`; what is normalised is not rounded before.
template <class T>
struct ResidualRows {
  using W = Wide<T>;
  const T *residual, *x, *bias;  ///< bias may be null
  T* sum;
  std::int64_t width;
  bool drops;
  DropoutFactors factors;  ///< if `drops`

  template <int N>
  ANNULUS_BODY Pack<W, N> at(std::int64_t row, std::int64_t j) const {
    auto values = load_pack<N>(x + row * width + j);
    if (bias != nullptr) {
      const auto shift = load_pack<N>(bias + j);
      ANNULUS_UNROLL
      for (int k = 0; k < N; ++k) values[k] += shift[k];
    }
    if (drops) drop<N>(row, j, values);
    const auto other = load_pack<N>(residual + row * width + j);
    ANNULUS_UNROLL
    for (int k = 0; k < N; ++k) values[k] += other[k];
    store_pack(sum + row * width + j, values);
    return values;
  }

 private:
  /// Packs begin at multiples of their size: one of less than four lies in one counter.
  template <int N>
  ANNULUS_BODY void drop(std::int64_t row, std::int64_t j, Pack<W, N>& values) const {
    ANNULUS_UNROLL
    for (int group = 0; group < N; group += 4) {
      const std::int64_t column = factors.column_offset + j + group;
      const PhiloxCounter words = factors.words(row, column / 4);
      ANNULUS_UNROLL
      for (int k = 0; k < 4 && group + k < N; ++k) {
        values[group + k] *= factors.dropout.factor<W>(word_of(words, column % 4 + k));
      }
    }
  }
};

/// One block a row, which is kept in shared memory: each thread reads again only what it has put there itself.
template <class T, class Rows>
struct LayerNormBody {
  using W = Wide<T>;
  static constexpr int kPack = kPackOf<T>;
  Rows rows;
  const T *gamma, *beta;
  T* y;
  W* statistics;
  std::int64_t width;
  W epsilon;
  bool packed;

  template <class Block>
  ANNULUS_BODY void operator()(Block& block) const {
    const std::int64_t row = block.index();
    W* const kept = reinterpret_cast<W*>(block.shared() + reduction_bytes<W>());
    W sum = 0;
    walk<kPack>(block, width, packed, [&]<int N>(Width<N>, std::int64_t j) {
      const auto values = rows.template at<N>(row, j);
      store_pack(kept + j, values);
      sum += sum_of(values);
    });
    const W mean = reduce_block(block, sum, W(0), AddValues()) / static_cast<W>(width);
    W squares = 0;
    walk<kPack>(block, width, packed, [&]<int N>(Width<N>, std::int64_t j) {
      const auto values = load_pack<N>(kept + j);
      squares += sum_of(make_pack<N>([&](int k) { return (values[k] - mean) * (values[k] - mean); }));
    });
    const W variance = reduce_block(block, squares, W(0), AddValues()) / static_cast<W>(width);
    const RowStatistics<W> found{mean, W(1) / std::sqrt(variance + epsilon)};
    walk<kPack>(block, width, packed, [&]<int N>(Width<N>, std::int64_t j) {
      const auto values = load_pack<N>(kept + j), scale = load_pack<N>(gamma + j), shift = load_pack<N>(beta + j);
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
  const T* addend;  ///< may be null, or dx
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
      auto result =
          make_pack<N>([&](int k) { return layer_norm_slope(values[k], slope[k] * scale[k], known, sum, projected); });
      if (addend != nullptr) {
        const auto other = load_pack<N>(addend + at + j);
        ANNULUS_UNROLL
        for (int k = 0; k < N; ++k) result[k] += other[k];
      }
      store_pack(dx + at + j, result);
    });
  }
};

/// The norm of `rows`: gamma and beta are inputs from `first_vector` on, y and statistics outputs from `first_output`
/// on.
template <class T, class Launcher, class Rows>
void normalize(const LayerNorm& norm, const KernelArguments& arguments, const Launcher& launcher, const Rows& rows,
               std::size_t first_vector, std::size_t first_output, bool packed) {
  constexpr int kPack = kPackOf<T>;
  const T *gamma = arguments.inputs[first_vector].as<T>(), *beta = arguments.inputs[first_vector + 1].as<T>();
  const Tensor &y = arguments.outputs[first_output], &statistics = arguments.outputs[first_output + 1];
  packed = packed && rows.width % kPack == 0 && aligned<kPack>(gamma, beta, y.as<T>());
  const std::int64_t kept_bytes = rows.width * static_cast<std::int64_t>(sizeof(Wide<T>));
  launcher({y.shape.rows(), reduction_bytes<Wide<T>>() + kept_bytes, walk_threads(rows.width, kPack)},
           LayerNormBody<T, Rows>{rows, gamma, beta, y.as<T>(), statistics.as<Wide<T>>(), rows.width,
                                  static_cast<Wide<T>>(norm.epsilon()), packed});
}

template <class Launcher>
void launch(const LayerNorm& op, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor& x = arguments.inputs[0];
  dispatch_stored(x.dtype, [&]<class T>(T) {
    normalize<T>(op, arguments, launcher, PlainRows<T>{x.as<T>(), x.shape.columns()}, 1, 0,
                 aligned<kPackOf<T>>(x.as<T>()));
  });
}

template <class Launcher>
void launch(const ResidualNorm& op, const KernelArguments& arguments, const Launcher& launcher) {
  const auto inputs = arguments.inputs;
  const Tensor& sum = arguments.outputs[0];
  const bool drops = op.dropout().has_value();
  // unused where nothing is dropped
  const DropoutMask mask = drops ? op.dropout()->mask() : DropoutMask{};
  const Tensor none{nullptr, DType::i32, {}};
  const Tensor &row_ids = drops ? inputs[op.row_ids_input()] : none,
               &step = drops ? inputs[op.row_ids_input() + 1] : none;
  const DropoutFactors factors{row_ids.as<std::int32_t>(), {mask, step}, drops ? op.dropout()->column_offset() : 0};
  dispatch_stored(sum.dtype, [&]<class T>(T) {
    const T* bias = op.bias() == ResidualNorm::Bias::none ? nullptr : inputs[4].as<T>();
    const ResidualRows<T> rows{
        inputs[0].as<T>(), inputs[1].as<T>(), bias, sum.as<T>(), sum.shape.columns(), drops, factors};
    const bool packed =
        factors.column_offset % kPackOf<T> == 0 && aligned<kPackOf<T>>(rows.residual, rows.x, rows.bias, rows.sum);
    normalize<T>(op.norm(), arguments, launcher, rows, 2, 1, packed);
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
    const T* addend = arguments.inputs.size() > 4 ? arguments.inputs[4].as<T>() : nullptr;
    const bool packed = width % kPack == 0 && aligned<kPack>(x.as<T>(), gamma, dy, addend, dx.as<T>(), dgamma);
    launcher({parts, Body::shared_bytes(width), walk_threads(width, kPack)},
             Body{x.as<T>(), gamma, dy, arguments.inputs[2].as<Wide<T>>(), addend, dx.as<T>(), dgamma, dbeta, rows,
                  width, parts, packed});
    column_totals(launcher, dgamma, parts, width, arguments.outputs[1].as<Wide<T>>());
    column_totals(launcher, dbeta, parts, width, arguments.outputs[2].as<Wide<T>>());
  });
}

}  // namespace annulus
