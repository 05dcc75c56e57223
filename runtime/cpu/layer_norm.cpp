#include <algorithm>
#include <cmath>

#include "runtime/core/formulas.h"
#include "runtime/cpu/keep_mask.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/parallel.h"
#include "runtime/cpu/vector_loops.h"

namespace annulus {
namespace {

/// Row-wise normalisation y = (x - mean) / sqrt(variance + epsilon) * gamma + beta; stats are (mean, 1 / root).
template <class T>
void layer_norm_row(const T* x, const T* gamma, const T* beta, T* y, T* stats, std::int64_t width, T epsilon) {
  using V = Vector<T>;
  const T columns = static_cast<T>(width);
  const T mean = sum_over(
                     width, [](V at) { return at; }, x) /
                 columns;
  const T squares = sum_over(
      width, [=](V at) { return (at - mean) * (at - mean); }, x);
  const RowStatistics<T> row{mean, T(1) / std::sqrt(squares / columns + epsilon)};
  transform(
      y, width, [=](V at, V scale, V shift) { return normalized(at, row) * scale + shift; }, x, gamma, beta);
  stats[0] = row.mean;
  stats[1] = row.inverse;
}

/// Adds the row's share to the sums of dgamma and dbeta. `addend` may be null.
template <class T>
void layer_norm_grad_row(const T* x, const T* gamma, const T* stats, const T* dy, const T* addend, T* dx, T* dgamma,
                         T* dbeta, std::int64_t width) {
  using V = Vector<T>;
  const RowStatistics<T> row{stats[0], stats[1]};
  V slopes{}, projections{};
  const auto add = [&](V at, V scale, V slope, V& gamma_sum, V& beta_sum) {
    const V normal = normalized(at, row);
    slopes += slope * scale;
    projections += slope * scale * normal;
    gamma_sum += slope * normal;
    beta_sum += slope;
  };
  std::int64_t j = 0;
  for (; j + kLanes<T> <= width; j += kLanes<T>) {
    prefetch_ahead(x + j);
    prefetch_ahead(dy + j);
    V gamma_sum = load(dgamma + j), beta_sum = load(dbeta + j);
    add(load(x + j), load(gamma + j), load(dy + j), gamma_sum, beta_sum);
    store(dgamma + j, gamma_sum);
    store(dbeta + j, beta_sum);
  }
  if (const std::int64_t size = width - j; size > 0) {  // dy is 0 beyond, and so is what it adds
    V gamma_sum = load_part(dgamma + j, size), beta_sum = load_part(dbeta + j, size);
    add(load_part(x + j, size), load_part(gamma + j, size), load_part(dy + j, size), gamma_sum, beta_sum);
    store_part(dgamma + j, gamma_sum, size);
    store_part(dbeta + j, beta_sum, size);
  }
  const T columns = static_cast<T>(width);
  const T slope_mean = sum_of_lanes(slopes) / columns, projected_mean = sum_of_lanes(projections) / columns;
  const auto input_slope = [=](V at, V scale, V slope) {
    return layer_norm_slope(at, slope * scale, row, slope_mean, projected_mean);
  };
  if (addend == nullptr) return transform(dx, width, input_slope, x, gamma, dy);
  const auto sum = [=](V other, V at, V scale, V slope) { return other + input_slope(at, scale, slope); };
  transform(dx, width, sum, addend, x, gamma, dy);
}

/// The rows are summed in parts whose number depends on the shape alone, and so does the result.
std::int64_t grad_parts(std::int64_t rows) { return std::clamp<std::int64_t>(rows / 32, 1, 64); }

template <class T>
void layer_norm_grad(const KernelArguments& arguments) {
  const Tensor& input = arguments.inputs[0];
  const std::int64_t rows = input.shape.rows(), width = input.shape.columns(), parts = grad_parts(rows);
  const T *x = input.as<T>(), *gamma = arguments.inputs[1].as<T>(), *stats = arguments.inputs[2].as<T>();
  const T* dy = arguments.inputs[3].as<T>();
  const T* addend = arguments.inputs.size() > 4 ? arguments.inputs[4].as<T>() : nullptr;
  T *dx = arguments.outputs[0].as<T>(), *dgamma = arguments.outputs[1].as<T>(), *dbeta = arguments.outputs[2].as<T>();
  T* sums = reinterpret_cast<T*>(arguments.workspace);
  parallel_ranges(parts, 1, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t part = begin; part < end; ++part) {
      T *gamma_sum = sums + part * 2 * width, *beta_sum = gamma_sum + width;
      std::fill_n(gamma_sum, 2 * width, T(0));
      for (std::int64_t row = rows * part / parts; row < rows * (part + 1) / parts; ++row) {
        const std::int64_t at = row * width;
        layer_norm_grad_row(x + at, gamma, stats + 2 * row, dy + at, addend == nullptr ? nullptr : addend + at, dx + at,
                            gamma_sum, beta_sum, width);
      }
    }
  });
  std::copy_n(sums, width, dgamma);
  std::copy_n(sums + width, width, dbeta);
  for (std::int64_t part = 1; part < parts; ++part) {
    const T *gamma_sum = sums + part * 2 * width, *beta_sum = gamma_sum + width;
    const auto add = [](Vector<T> a, Vector<T> b) { return a + b; };
    transform(dgamma, width, add, dgamma, gamma_sum);
    transform(dbeta, width, add, dbeta, beta_sum);
  }
}

/// sum = residual + dropout(x + bias), row by row.
template <class T>
class ResidualRows {
 public:
  ResidualRows(const ResidualNorm& op, const KernelArguments& arguments)
      : residual_(arguments.inputs[0].as<T>()),
        x_(arguments.inputs[1].as<T>()),
        bias_(op.bias() == ResidualNorm::Bias::none ? nullptr : arguments.inputs[4].as<T>()),
        width_(arguments.inputs[0].shape.columns()) {
    if (!op.dropout()) return;
    const DropoutMask& mask = op.dropout()->mask();
    row_ids_ = arguments.inputs[op.row_ids_input()].as<std::int32_t>();
    const std::int32_t step = arguments.inputs[op.row_ids_input() + 1].as<std::int32_t>()[0];
    rule_ = {stream_key(mask.seed, mask.stream, static_cast<std::uint64_t>(step)), mask.rate};
    column_offset_ = op.dropout()->column_offset();
  }

  void add(std::int64_t row, T* sum) const {
    using V = Vector<T>;
    constexpr std::int64_t kChunk = 1024;
    for (std::int64_t first = 0; first < width_; first += kChunk) {
      const std::int64_t size = std::min(kChunk, width_ - first), at = row * width_ + first;
      const T *residual = residual_ + at, *x = x_ + at, *bias = bias_ + (bias_ == nullptr ? 0 : first);
      T* to = sum + first;
      T factors[kChunk];
      if (row_ids_ != nullptr) keep(row, first, size, factors);
      if (row_ids_ != nullptr && bias_ != nullptr) {
        transform(
            to, size, [](V r, V a, V b, V f) { return r + (a + b) * f; }, residual, x, bias, factors);
      } else if (row_ids_ != nullptr) {
        transform(
            to, size, [](V r, V a, V f) { return r + a * f; }, residual, x, factors);
      } else if (bias_ != nullptr) {
        transform(
            to, size, [](V r, V a, V b) { return r + (a + b); }, residual, x, bias);
      } else {
        transform(
            to, size, [](V r, V a) { return r + a; }, residual, x);
      }
    }
  }

 private:
  void keep(std::int64_t row, std::int64_t first, std::int64_t size, T* factors) const {
    const PhiloxCounter counter{static_cast<std::uint32_t>(row_ids_[2 * row]),
                                static_cast<std::uint32_t>(row_ids_[2 * row + 1]), 0, 0};
    keep_factors(rule_, counter, 2, static_cast<std::uint32_t>(column_offset_ + first), 1, size, factors);
  }

  const T *residual_, *x_, *bias_;
  std::int64_t width_;
  const std::int32_t* row_ids_ = nullptr;  ///< null where nothing is dropped
  DropoutRule rule_;
  std::int64_t column_offset_ = 0;
};

}  // namespace

void run(const LayerNorm& op, const KernelArguments& arguments) {
  const Tensor &x = arguments.inputs[0], &gamma = arguments.inputs[1], &beta = arguments.inputs[2];
  const Tensor &y = arguments.outputs[0], &stats = arguments.outputs[1];
  const std::int64_t rows = x.shape.rows(), width = x.shape.columns();
  dispatch_float(y.dtype, [&]<class T>(T) {
    parallel_ranges(rows, 4, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        layer_norm_row(x.as<T>() + row * width, gamma.as<T>(), beta.as<T>(), y.as<T>() + row * width,
                       stats.as<T>() + 2 * row, width, static_cast<T>(op.epsilon()));
      }
    });
  });
}

void run(const ResidualNorm& op, const KernelArguments& arguments) {
  const Tensor &gamma = arguments.inputs[2], &beta = arguments.inputs[3];
  const Tensor &sum = arguments.outputs[0], &y = arguments.outputs[1], &stats = arguments.outputs[2];
  const std::int64_t rows = sum.shape.rows(), width = sum.shape.columns();
  dispatch_float(sum.dtype, [&]<class T>(T) {
    const ResidualRows<T> joined(op, arguments);
    parallel_ranges(rows, 4, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        T* const of_row = sum.as<T>() + row * width;
        joined.add(row, of_row);
        layer_norm_row(of_row, gamma.as<T>(), beta.as<T>(), y.as<T>() + row * width, stats.as<T>() + 2 * row, width,
                       static_cast<T>(op.norm().epsilon()));
      }
    });
  });
}

std::int64_t workspace_bytes(const LayerNormGrad&, OpTypes inputs, OpTypes) {
  const Shape& shape = inputs[0].shape;
  return grad_parts(shape.rows()) * 2 * shape.columns() * size_of(inputs[0].dtype);
}

void run(const LayerNormGrad&, const KernelArguments& arguments) {
  dispatch_float(arguments.outputs[0].dtype, [&]<class T>(T) { layer_norm_grad<T>(arguments); });
}

}  // namespace annulus
