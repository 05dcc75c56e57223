#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "runtime/core/random.h"
#include "runtime/core/vector.h"

namespace annulus {

/// Which elements dropout keeps, as factors: 0, or 1 / (1 - rate).
struct DropoutRule {
  PhiloxKey key{};
  double rate = 0;

  /// An element is kept where its 32 random bits reach this.
  std::uint64_t threshold() const { return static_cast<std::uint64_t>(std::ceil(rate * 0x1p32)); }
};

/// 32-bit words of Philox for many counters at once: element i of `words` is word (x % 4) of the counter `fixed` with x
/// / 4 written into its field `field`, where x = first + i * stride.
void philox_words(PhiloxKey key, PhiloxCounter fixed, int field, std::uint32_t first, std::uint32_t stride,
                  std::int64_t count, std::uint32_t* words);

/// The factors of `count` elements whose counters run as in `philox_words`.
template <class T>
void keep_factors(const DropoutRule& rule, PhiloxCounter fixed, int field, std::uint32_t first, std::uint32_t stride,
                  std::int64_t count, T* factors) {
  using Bits = typename ValueTraits<T>::Bits;
  constexpr std::int64_t kChunk = 256;
  std::uint32_t words[kChunk];
  const auto kept = static_cast<T>(1 / (1 - rule.rate));
  const std::uint64_t threshold = rule.threshold();
  const bool all_dropped = threshold > std::numeric_limits<std::uint32_t>::max();
  const auto factor = [=](Vector<Bits> bits) {
    return bits >= static_cast<Bits>(threshold) ? Vector<T>{} + (all_dropped ? T(0) : kept) : Vector<T>{};
  };
  for (std::int64_t begin = 0; begin < count; begin += kChunk) {
    const std::int64_t size = std::min(kChunk, count - begin);
    philox_words(rule.key, fixed, field, first + static_cast<std::uint32_t>(begin) * stride, stride, size, words);
    for (std::int64_t i = 0; i < size; i += kLanes<T>) {
      const auto drawn = load_as<Vector<std::uint32_t, kLanes<T> * sizeof(std::uint32_t)>>(words + i);
      const Vector<T> factors_here = factor(__builtin_convertvector(drawn, Vector<Bits>));
      if (size - i >= kLanes<T>) {
        store(factors + begin + i, factors_here);
      } else {
        store_part(factors + begin + i, factors_here, size - i);
      }
    }
  }
}

}  // namespace annulus
