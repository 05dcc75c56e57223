#include "collectives/reduce.h"

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "runtime/core/half_vector.h"

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
                  Combine combine, Stores stores) {
  alignas(64) T block[kBlock];
  for (std::int64_t begin = 0; begin < count; begin += kBlock) {
    const std::int64_t length = std::min(kBlock, count - begin);
    const T* result = reinterpret_cast<const T*>(inputs[0]) + begin;
    for (std::size_t input = 1; input < inputs.size(); ++input) {
      // Only the last may overwrite an input.
      const bool is_last = input + 1 == inputs.size();
      T* target = !is_last || stores == Stores::streaming ? block : reinterpret_cast<T*>(outputs[0]) + begin;
      combine_into(target, result, reinterpret_cast<const T*>(inputs[input]) + begin, length, combine);
      result = target;
    }
    for (std::byte* output : outputs)
      copy_bytes(reinterpret_cast<T*>(output) + begin, result, length * static_cast<std::int64_t>(sizeof(T)), stores);
  }
}

/// Halves are summed as floats, and rounded once.
template <class Half, class Combine>
void reduce_halves(std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs, std::int64_t count,
                   Combine combine, Stores stores) {
  alignas(64) float sums[kBlock], terms[kBlock];
  alignas(64) Half rounded[kBlock];
  for (std::int64_t begin = 0; begin < count; begin += kBlock) {
    const std::int64_t length = std::min(kBlock, count - begin);
    widen(reinterpret_cast<const Half*>(inputs[0]) + begin, sums, length);
    for (const std::byte* input : inputs.subspan(1)) {
      widen(reinterpret_cast<const Half*>(input) + begin, terms, length);
      combine_into(sums, sums, terms, length, combine);
    }
    narrow(sums, rounded, length);
    for (std::byte* output : outputs)
      copy_bytes(reinterpret_cast<Half*>(output) + begin, rounded, length * static_cast<std::int64_t>(sizeof(Half)),
                 stores);
  }
}

template <class T>
void reduce_as(std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs, std::int64_t count,
               Reduction reduction, Stores stores) {
  const auto reduce = [&](auto combine) {
    if constexpr (kIsHalf<T>) {
      reduce_halves<T>(inputs, outputs, count, combine, stores);
    } else {
      reduce_typed<T>(inputs, outputs, count, combine, stores);
    }
  };
  switch (reduction) {
    case Reduction::sum:
      return reduce(Sum());
    case Reduction::max:
      return reduce(Maximum());
  }
}

}  // namespace

void reduce_in_order(std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs, std::int64_t count,
                     DType dtype, Reduction reduction, Stores stores) {
  switch (dtype) {
    case DType::f32:
      return reduce_as<float>(inputs, outputs, count, reduction, stores);
    case DType::f64:
      return reduce_as<double>(inputs, outputs, count, reduction, stores);
    case DType::i32:
      return reduce_as<std::int32_t>(inputs, outputs, count, reduction, stores);
    case DType::bf16:
      return reduce_as<BFloat16>(inputs, outputs, count, reduction, stores);
    case DType::f16:
      return reduce_as<Float16>(inputs, outputs, count, reduction, stores);
  }
}

void copy_bytes(void* target, const void* source, std::int64_t bytes, Stores stores) {
  if (bytes <= 0 || target == source) return;
  auto* to = static_cast<std::byte*>(target);
  const auto* from = static_cast<const std::byte*>(source);
#ifdef __AVX512F__
  constexpr std::int64_t kLine = 64;
  const std::int64_t head = -reinterpret_cast<std::intptr_t>(to) & (kLine - 1);
  if (stores == Stores::streaming && bytes >= head + kLine) {
    std::memcpy(to, from, static_cast<std::size_t>(head));
    const std::int64_t lines_end = head + (bytes - head) / kLine * kLine;
    for (std::int64_t at = head; at < lines_end; at += kLine)
      _mm512_stream_si512(reinterpret_cast<__m512i*>(to + at), _mm512_loadu_si512(from + at));
    _mm_sfence();  // streamed lines are not ordered by themselves before what the caller tells others
    std::memcpy(to + lines_end, from + lines_end, static_cast<std::size_t>(bytes - lines_end));
    return;
  }
#else
  static_cast<void>(stores);
#endif
  std::memcpy(to, from, static_cast<std::size_t>(bytes));
}

}  // namespace annulus
