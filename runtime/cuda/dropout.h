#pragma once

#include <cmath>

#include "runtime/core/random.h"
#include "runtime/cuda/pack.h"
#include "runtime/execute/kernel.h"
#include "runtime/ops/elementwise.h"

namespace annulus {

/// Which elements dropout keeps, drawn on the device: the step is known there alone.
struct DeviceDropout {
  std::uint64_t seed, stream, threshold;  ///< kept where 32 random bits reach the threshold
  double kept_factor;
  const std::int32_t* step;

  DeviceDropout(const DropoutMask& mask, const Tensor& step_number)
      : seed(mask.seed),
        stream(mask.stream),
        threshold(static_cast<std::uint64_t>(std::ceil(mask.rate * 0x1p32))),
        kept_factor(1 / (1 - mask.rate)),
        step(step_number.as<std::int32_t>()) {}

  ANNULUS_BODY bool active() const { return threshold > 0; }
  ANNULUS_BODY PhiloxKey key() const { return stream_key(seed, stream, static_cast<std::uint64_t>(*step)); }
  template <class T>
  ANNULUS_BODY T factor(std::uint32_t word) const {
    return word >= threshold ? static_cast<T>(kept_factor) : T(0);
  }
};

/// words[i], without memory to index.
ANNULUS_BODY inline std::uint32_t word_of(const PhiloxCounter& words, std::int64_t i) {
  const std::uint32_t low = i == 0 ? words[0] : words[1], high = i == 2 ? words[2] : words[3];
  return i < 2 ? low : high;
}

/// Factors of elements of a matrix: those of one counter are four columns of a row.
struct DropoutFactors {
  const std::int32_t* row_ids;
  DeviceDropout dropout;
  std::int64_t column_offset;  ///< global column of the first

  /// Random words of columns 4 group to 4 group + 3, counted globally.
  ANNULUS_BODY PhiloxCounter words(std::int64_t row, std::int64_t group) const {
    return philox({static_cast<std::uint32_t>(row_ids[2 * row]), static_cast<std::uint32_t>(row_ids[2 * row + 1]),
                   static_cast<std::uint32_t>(group), 0},
                  dropout.key());
  }
};

/// The four elements of one counter, or those of them that lie in the row.
template <class T>
struct DropoutGroup {
  const T* x;
  T* y;
  DropoutFactors factors;
  std::int64_t columns, groups;  ///< groups of a row
  bool packed;                   ///< all groups are whole, and aligned

  ANNULUS_BODY void operator()(std::int64_t i) const {
    const std::int64_t row = i / groups, group = factors.column_offset / 4 + i % groups;
    const PhiloxCounter words = factors.words(row, group);
    const auto kept = [&](int k) { return factors.dropout.factor<Wide<T>>(words[static_cast<std::size_t>(k)]); };
    if (packed) {
      const auto values = load_pack<4>(x + 4 * i);
      return store_pack(y + 4 * i, make_pack<4>([&](int k) { return values[k] * kept(k); }));
    }
    ANNULUS_UNROLL
    for (int k = 0; k < 4; ++k) {
      const std::int64_t column = 4 * group + k - factors.column_offset;
      if (column < 0 || column >= columns) continue;
      const std::int64_t at = row * columns + column;
      y[at] = stored_as<T>(widened(x[at]) * kept(k));
    }
  }
};

template <class Launcher>
void launch(const Dropout& op, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor &x = arguments.inputs[0], &y = arguments.outputs[0];
  const std::int64_t rows = x.shape.rows(), columns = x.shape.columns(), first = op.column_offset();
  if (columns == 0) return;
  const std::int64_t groups = (first + columns - 1) / 4 - first / 4 + 1;
  const DropoutFactors factors{arguments.inputs[1].as<std::int32_t>(), {op.mask(), arguments.inputs[2]}, first};
  dispatch_stored(y.dtype, [&]<class T>(T) {
    const bool packed = first % 4 == 0 && columns % 4 == 0 && aligned<4>(x.as<T>(), y.as<T>());
    for_each(launcher, rows * groups, DropoutGroup<T>{x.as<T>(), y.as<T>(), factors, columns, groups, packed});
  });
}

}  // namespace annulus
