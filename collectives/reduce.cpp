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

template <class T, class Combine>
void reduce_typed(std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs, std::int64_t count,
                  Combine combine) {
  T block[kBlock];
  for (std::int64_t begin = 0; begin < count; begin += kBlock) {
    const std::int64_t length = std::min(kBlock, count - begin);
    std::memcpy(block, reinterpret_cast<const T*>(inputs[0]) + begin, length * sizeof(T));
    for (std::size_t input = 1; input < inputs.size(); ++input) {
      const T* source = reinterpret_cast<const T*>(inputs[input]) + begin;
      for (std::int64_t i = 0; i < length; ++i) block[i] = combine(block[i], source[i]);
    }
    for (std::byte* output : outputs) std::memcpy(reinterpret_cast<T*>(output) + begin, block, length * sizeof(T));
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
