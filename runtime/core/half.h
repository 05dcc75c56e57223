#pragma once

#include <bit>
#include <cstdint>

#include "runtime/core/math.h"

namespace annulus {

/// Floats of 16 bits: types to *store* numbers in. What computes widens them to float, exactly, and rounds its results
/// to the nearest, to even where two are as near; beyond the largest number infinity, NaN stays NaN.
///
/// A format is written once for a number and for a vector: `Wide` is a float, or a vector of them, and its bits hold a
/// half's 16 in their low part. Nothing here meets a subnormal float, so that devices may flush those to zero.

/// The upper half of a float: 8 bits of exponent, 7 of fraction.
template <class Wide>
struct BFloat16Format {
  using Bits = typename ValueTraits<Wide>::Bits;
  static constexpr Wide widen(Bits half) { return std::bit_cast<Wide>(half << 16); }
  static constexpr Bits narrow(Wide x) {
    const Bits bits = std::bit_cast<Bits>(x);
    const Bits upper = bits >> 16, quiet = upper | 0x40u, rounded = (bits + 0x7FFFu + (upper & 1u)) >> 16;
    return x != x ? quiet : rounded;
  }
};

/// IEEE 754's binary16: 5 bits of exponent, 10 of fraction.
template <class Wide>
struct Float16Format {
  using Bits = typename ValueTraits<Wide>::Bits;
  static constexpr Wide widen(Bits half) {
    const Bits sign = (half & 0x8000u) << 16, magnitude = (half & 0x7FFFu) << 13;
    const Bits normal = magnitude + kBias, special = magnitude | 0x7F800000u;
    // 2^-14 (1 + fraction), less 2^-14: exact
    const Wide low = std::bit_cast<Wide>(magnitude + kLowestNormal) - std::bit_cast<Wide>(Bits{} + kLowestNormal);
    const Bits below = magnitude < (1u << 23) ? std::bit_cast<Bits>(low) : normal;
    const Bits value = magnitude >= (0x7C00u << 13) ? special : below;
    return std::bit_cast<Wide>(value | sign);
  }
  static constexpr Bits narrow(Wide x) {
    const Bits bits = std::bit_cast<Bits>(x);
    const Bits sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
    const Bits normal = (magnitude - kBias + 0xFFFu + ((magnitude >> 13) & 1u)) >> 13;
    // the last bit of 1/2 is 2^-24, the lowest number's: the sum rounds to it
    const Bits low = std::bit_cast<Bits>(std::bit_cast<Wide>(magnitude) + 0.5f) - kHalf;
    const Bits finite = magnitude < kLowestNormal ? low : normal;
    const Bits infinite = Bits{} + 0x7C00u, quiet = ((magnitude >> 13) & 0x3FFu) | 0x7E00u;
    const Bits value = magnitude >= kOverflow ? infinite : finite;
    return (x != x ? quiet : value) | sign;
  }

 private:
  static constexpr std::uint32_t kBias = 112u << 23;          // between the exponents of the two formats
  static constexpr std::uint32_t kLowestNormal = 113u << 23;  // 2^-14
  static constexpr std::uint32_t kHalf = 126u << 23;          // 1/2
  static constexpr std::uint32_t kOverflow = 0x477FF000u;     // 65520, which rounds beyond 65504
};

/// A number stored in 16 bits of `Format`. Trivial; on any device.
template <template <class> class Format>
struct HalfFloat {
  template <class Wide>
  using FormatFor = Format<Wide>;

  std::uint16_t bits;

  HalfFloat() = default;
  explicit constexpr HalfFloat(float x) : bits(static_cast<std::uint16_t>(Format<float>::narrow(x))) {}
  constexpr operator float() const { return Format<float>::widen(bits); }
  static constexpr HalfFloat from_bits(std::uint16_t bits) {
    HalfFloat value(0.0f);
    value.bits = bits;
    return value;
  }
};
using BFloat16 = HalfFloat<BFloat16Format>;
using Float16 = HalfFloat<Float16Format>;
static_assert(sizeof(BFloat16) == 2 && sizeof(Float16) == 2);

template <class T>
inline constexpr bool kIsHalf = false;
template <template <class> class Format>
inline constexpr bool kIsHalf<HalfFloat<Format>> = true;

/// The type in which elements of T are computed: float for halves, T itself for others.
template <class T>
struct WideOf {
  using Type = T;
};
template <template <class> class Format>
struct WideOf<HalfFloat<Format>> {
  using Type = float;
};
template <class T>
using Wide = typename WideOf<T>::Type;

}  // namespace annulus
