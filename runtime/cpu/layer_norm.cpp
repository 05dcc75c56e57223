#include <cmath>

#include "runtime/cpu/kernels.h"
#include "runtime/cpu/parallel.h"

namespace annulus {
namespace {

/// Row-wise normalisation y = (x - mean) / sqrt(variance + epsilon) * gamma + beta; stats are (mean, 1 / root).
template <class T>
void layer_norm_row(const T* x, const T* gamma, const T* beta, T* y, T* stats, std::int64_t width, T epsilon) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t j = 0; j < width; ++j) sum += x[j];
  const T mean = sum / static_cast<T>(width);
  T squares = 0;
#pragma omp simd reduction(+ : squares)
  for (std::int64_t j = 0; j < width; ++j) squares += (x[j] - mean) * (x[j] - mean);
  const T inverse = T(1) / std::sqrt(squares / static_cast<T>(width) + epsilon);
#pragma omp simd
  for (std::int64_t j = 0; j < width; ++j) y[j] = (x[j] - mean) * inverse * gamma[j] + beta[j];
  stats[0] = mean;
  stats[1] = inverse;
}

/// Adds the row's share to the sums of dgamma and dbeta.
template <class T>
void layer_norm_grad_row(const T* x, const T* gamma, const T* stats, const T* dy, T* dx, T* dgamma, T* dbeta,
                         std::int64_t width) {
  const T mean = stats[0], inverse = stats[1];
  T sum = 0, projected = 0;
#pragma omp simd reduction(+ : sum, projected)
  for (std::int64_t j = 0; j < width; ++j) {
    const T normal = (x[j] - mean) * inverse, slope = dy[j] * gamma[j];
    sum += slope;
    projected += slope * normal;
    dgamma[j] += dy[j] * normal;
    dbeta[j] += dy[j];
  }
  sum /= static_cast<T>(width);
  projected /= static_cast<T>(width);
#pragma omp simd
  for (std::int64_t j = 0; j < width; ++j) {
    dx[j] = inverse * (dy[j] * gamma[j] - sum - (x[j] - mean) * inverse * projected);
  }
}

/// The rows are summed in parts whose number depends on the shape alone, and so does the result.
std::int64_t grad_parts(std::int64_t rows) { return std::clamp<std::int64_t>(rows / 32, 1, 64); }

template <class T>
void layer_norm_grad(const KernelArguments& arguments) {
  const Tensor& input = arguments.inputs[0];
  const std::int64_t rows = input.shape.rows(), width = input.shape.columns(), parts = grad_parts(rows);
  const T *x = input.as<T>(), *gamma = arguments.inputs[1].as<T>(), *stats = arguments.inputs[2].as<T>();
  const T* dy = arguments.inputs[3].as<T>();
  T *dx = arguments.outputs[0].as<T>(), *dgamma = arguments.outputs[1].as<T>(), *dbeta = arguments.outputs[2].as<T>();
  T* sums = reinterpret_cast<T*>(arguments.workspace);
  parallel_ranges(parts, 1, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t part = begin; part < end; ++part) {
      T *gamma_sum = sums + part * 2 * width, *beta_sum = gamma_sum + width;
      std::fill_n(gamma_sum, 2 * width, T(0));
      for (std::int64_t row = rows * part / parts; row < rows * (part + 1) / parts; ++row) {
        const std::int64_t at = row * width;
        layer_norm_grad_row(x + at, gamma, stats + 2 * row, dy + at, dx + at, gamma_sum, beta_sum, width);
      }
    }
  });
  std::copy_n(sums, width, dgamma);
  std::copy_n(sums + width, width, dbeta);
  for (std::int64_t part = 1; part < parts; ++part) {
    const T *gamma_sum = sums + part * 2 * width, *beta_sum = gamma_sum + width;
#pragma omp simd
    for (std::int64_t j = 0; j < width; ++j) {
      dgamma[j] += gamma_sum[j];
      dbeta[j] += beta_sum[j];
    }
  }
}

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

std::int64_t workspace_bytes(const LayerNormGrad&, OpTypes inputs, OpTypes) {
  const Shape& shape = inputs[0].shape;
  return grad_parts(shape.rows()) * 2 * shape.columns() * size_of(inputs[0].dtype);
}

void run(const LayerNormGrad&, const KernelArguments& arguments) {
  dispatch_float(arguments.outputs[0].dtype, [&]<class T>(T) { layer_norm_grad<T>(arguments); });
}

}  // namespace annulus
