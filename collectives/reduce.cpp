#include "collectives/reduce.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

namespace annulus {
namespace {

constexpr std::int64_t kBlock = 2048;  // elements; a block of sums stays in the first-level cache

// Types rather than functions, so that the loop over a block contains them and is vectorised.
struct Maximum {
  template <class T>
  T operator()(T one, T other) const {
    if constexpr (std::is_floating_point_v<T>) {
      return (one >= other) | (one != one) ? one : other;
    } else {
      return std::max(one, other);
    }
  }
};

struct Sum {
  template <class T>
  T operator()(T one, T other) const {
    if constexpr (std::is_floating_point_v<T>) {
      return one + other;
    } else {
      using Wrapping = std::make_unsigned_t<T>;
      return static_cast<T>(static_cast<Wrapping>(one) + static_cast<Wrapping>(other));
    }
  }
};

/// The target may be one of the others.
template <class T, class Combine>
void combine_into(T* target, const T* one, const T* other, std::int64_t count, Combine combine) {
#pragma GCC ivdep
  for (std::int64_t i = 0; i < count; ++i) target[i] = combine(one[i], other[i]);
}

template <class T, class Combine>
void reduce_typed(std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs, std::int64_t count,
                  Combine combine) {
  T block[kBlock];
  for (std::int64_t begin = 0; begin < count; begin += kBlock) {
    const std::int64_t length = std::min(kBlock, count - begin);
    const T* result = reinterpret_cast<const T*>(inputs[0]) + begin;
    for (std::size_t input = 1; input < inputs.size(); ++input) {
      // Only the last may overwrite an input.
      T* target = input + 1 < inputs.size() ? block : reinterpret_cast<T*>(outputs[0]) + begin;
      combine_into(target, result, reinterpret_cast<const T*>(inputs[input]) + begin, length, combine);
      result = target;
    }
    for (std::byte* output : outputs)
      copy_bytes(reinterpret_cast<T*>(output) + begin, result, length * static_cast<std::int64_t>(sizeof(T)));
  }
}

template <class T>
void reduce_as(std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs, std::int64_t count,
               Reduction reduction) {
  switch (reduction) {
    case Reduction::sum:
      return reduce_typed<T>(inputs, outputs, count, Sum());
    case Reduction::max:
      return reduce_typed<T>(inputs, outputs, count, Maximum());
  }
}

}  // namespace

void reduce_in_order(std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs, std::int64_t count,
                     DType dtype, Reduction reduction) {
  switch (dtype) {
    case DType::f32:
      return reduce_as<float>(inputs, outputs, count, reduction);
    case DType::f64:
      return reduce_as<double>(inputs, outputs, count, reduction);
    case DType::i32:
      return reduce_as<std::int32_t>(inputs, outputs, count, reduction);
  }
}

void copy_bytes(void* target, const void* source, std::int64_t bytes) {
  if (bytes > 0 && target != source) std::memcpy(target, source, static_cast<std::size_t>(bytes));
}

}  // namespace annulus
