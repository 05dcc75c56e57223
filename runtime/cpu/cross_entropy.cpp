#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/core/formulas.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/parallel.h"
#include "runtime/cpu/vector_loops.h"

namespace annulus {
namespace {

/// The logits of one rank: columns [offset, offset + columns) of a vocabulary of which `valid` are real here.
struct Shard {
  std::int64_t rows, columns, valid, offset;
};

Shard shard_of(const Tensor& logits, const VocabularyShard& shard) {
  const std::int64_t columns = logits.shape.columns();
  const std::int64_t valid = std::clamp<std::int64_t>(shard.vocabulary - shard.offset, 0, columns);
  return {logits.shape.rows(), columns, valid, shard.offset};
}

template <class Function>
void for_each_row(const Shard& shard, const Function& function) {
  parallel_ranges(shard.rows, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) function(row);
  });
}

template <class T>
T row_max(const T* logits, std::int64_t count) {
  const auto larger = [](auto a, auto b) { return b > a ? b : a; };
  Vector<T> largest[2];
  for (Vector<T>& lanes : largest) lanes = Vector<T>{} - std::numeric_limits<T>::infinity();
  std::int64_t j = 0;
  for (; j + 2 * kLanes<T> <= count; j += 2 * kLanes<T>) {
    for (std::int64_t k = 0; k < 2; ++k) {
      prefetch_ahead(logits + j + k * kLanes<T>);
      largest[k] = larger(largest[k], load(logits + j + k * kLanes<T>));
    }
  }
  const Vector<T> both = larger(largest[0], largest[1]);
  T result = both[0];
  for (std::int64_t lane = 1; lane < kLanes<T>; ++lane) result = larger(result, T(both[lane]));
  for (; j < count; ++j) result = larger(result, logits[j]);
  return result;
}

/// Of so few logits that they are summed in T.
template <std::int64_t Ahead = kBytesAhead, class T>
double sum_exp_of_block(const T* logits, T largest, std::int64_t count) {
  const auto term = [=](Vector<T> logit) { return exponential(logit - largest); };
  return static_cast<double>(sum_over<Ahead>(count, term, logits));
}

/// Sums in double over blocks: vocabularies are long.
template <class T>
T row_sum_exp(const T* logits, T largest, std::int64_t count) {
  constexpr std::int64_t kBlock = 4096;
  double total = 0;
  for (std::int64_t first = 0; first < count; first += kBlock)
    total += sum_exp_of_block(logits + first, largest, std::min(kBlock, count - first));
  return static_cast<T>(total);
}

template <class T>
struct RowSums {
  T largest, sum_exp;
};

/// Both in one pass: while exponentials of a block are taken, the next one comes.
template <class T>
RowSums<T> row_softmax(const T* logits, std::int64_t count) {
  constexpr std::int64_t kBlock = 1024;
  T largest = -std::numeric_limits<T>::infinity();
  double total = 0;
  for (std::int64_t first = 0; first < count; first += kBlock) {
    const std::int64_t size = std::min(kBlock, count - first);
    const T of_block = row_max(logits + first, size);
    if (of_block > largest) {
      total *= std::exp(static_cast<double>(largest) - static_cast<double>(of_block));
      largest = of_block;
    }
    total += sum_exp_of_block<kBlock * sizeof(T)>(logits + first, softmax_reference(largest), size);
  }
  return {largest, static_cast<T>(total)};
}

template <class T>
T target_logit(const T* logits, std::int32_t id, const Shard& shard) {
  const std::int64_t target = id - shard.offset;
  return target >= 0 && target < shard.valid ? logits[target] : T(0);
}

template <class T>
void nll_grad_row(T* logits, T sum_exp, T largest, std::int64_t target, T weight, const Shard& shard) {
  const T scale = weight / sum_exp;
  const auto slope = [=](Vector<T> logit) { return scaled_probability(logit, largest, scale); };
  transform(logits, shard.valid, slope, logits);
  std::fill(logits + shard.valid, logits + shard.columns, T(0));
  if (target >= 0 && target < shard.valid) logits[target] -= weight;
}

}  // namespace

void run(const RowMax& op, const KernelArguments& arguments) {
  const Tensor &logits = arguments.inputs[0], &largest = arguments.outputs[0];
  const Shard shard = shard_of(logits, op.shard());
  dispatch_float(logits.dtype, [&]<class T>(T) {
    for_each_row(shard, [&](std::int64_t row) {
      largest.as<T>()[row] = row_max(logits.as<T>() + row * shard.columns, shard.valid);
    });
  });
}

void run(const RowSumExp& op, const KernelArguments& arguments) {
  const Tensor &logits = arguments.inputs[0], &largest = arguments.inputs[1], &sums = arguments.outputs[0];
  const Shard shard = shard_of(logits, op.shard());
  dispatch_float(logits.dtype, [&]<class T>(T) {
    for_each_row(shard, [&](std::int64_t row) {
      sums.as<T>()[row] = row_sum_exp(logits.as<T>() + row * shard.columns, largest.as<T>()[row], shard.valid);
    });
  });
}

void run(const RowTarget& op, const KernelArguments& arguments) {
  const Tensor &logits = arguments.inputs[0], &targets = arguments.inputs[1], &values = arguments.outputs[0];
  const Shard shard = shard_of(logits, op.shard());
  dispatch_float(logits.dtype, [&]<class T>(T) {
    for_each_row(shard, [&](std::int64_t row) {
      values.as<T>()[row] = target_logit(logits.as<T>() + row * shard.columns, targets.as<std::int32_t>()[row], shard);
    });
  });
}

void run(const RowSoftmax& op, const KernelArguments& arguments) {
  const Tensor &logits = arguments.inputs[0], &targets = arguments.inputs[1];
  const Shard shard = shard_of(logits, op.shard());
  dispatch_float(logits.dtype, [&]<class T>(T) {
    T *largest = arguments.outputs[0].as<T>(), *sums = arguments.outputs[1].as<T>(),
      *values = arguments.outputs[2].as<T>();
    for_each_row(shard, [&](std::int64_t row) {
      const T* from = logits.as<T>() + row * shard.columns;
      const RowSums<T> row_sums = row_softmax(from, shard.valid);
      largest[row] = row_sums.largest;
      sums[row] = row_sums.sum_exp;
      values[row] = target_logit(from, targets.as<std::int32_t>()[row], shard);
    });
  });
}

void run(const Nll&, const KernelArguments& arguments) {
  const Tensor &sum_exp = arguments.inputs[1], &largest = arguments.inputs[2], &target_logit = arguments.inputs[3];
  const Tensor &weights = arguments.inputs[5], &sums = arguments.outputs[0];
  dispatch_float(weights.dtype, [&]<class T>(T) {
    double loss = 0, weight_sum = 0;
    for (std::int64_t row = 0; row < weights.elements(); ++row) {
      const double weight = static_cast<double>(weights.as<T>()[row]);
      if (weight == 0) continue;
      const double log_sum =
          std::log(static_cast<double>(sum_exp.as<T>()[row])) + static_cast<double>(largest.as<T>()[row]);
      loss += weight * (log_sum - static_cast<double>(target_logit.as<T>()[row]));
      weight_sum += weight;
    }
    sums.as<double>()[0] = loss;
    sums.as<double>()[1] = weight_sum;
  });
}

void run(const NllGrad& op, const KernelArguments& arguments) {
  const Tensor &sum_exp = arguments.inputs[1], &largest = arguments.inputs[2], &targets = arguments.inputs[3];
  const Tensor &weights = arguments.inputs[4], &logits = arguments.outputs[0];
  const Shard shard = shard_of(logits, op.shard());
  dispatch_float(logits.dtype, [&]<class T>(T) {
    for_each_row(shard, [&](std::int64_t row) {
      nll_grad_row(logits.as<T>() + row * shard.columns, sum_exp.as<T>()[row], largest.as<T>()[row],
                   targets.as<std::int32_t>()[row] - shard.offset, weights.as<T>()[row], shard);
    });
  });
}

}  // namespace annulus
