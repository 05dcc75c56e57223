#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "runtime/core/math.h"

#ifdef __SSE2__
#include <immintrin.h>
#endif

namespace annulus {

/// Bytes of the processor's widest vectors, of those that this is compiled for.
#if defined(__AVX512F__)
inline constexpr std::size_t kNativeVectorBytes = 64;
#elif defined(__AVX__)
inline constexpr std::size_t kNativeVectorBytes = 32;
#else
inline constexpr std::size_t kNativeVectorBytes = 16;
#endif

namespace vector_detail {

template <class T, std::size_t Bytes>
struct VectorOf {
  using Type [[gnu::vector_size(Bytes)]] = T;
};

}  // namespace vector_detail

/// Numbers that are computed with together, by the ordinary operators, which compilers translate one by one into the
/// processor's: nothing hangs on a loop being recognised. `mask ? a : b` chooses lane by lane.
template <class T, std::size_t Bytes = kNativeVectorBytes>
using Vector = typename vector_detail::VectorOf<T, Bytes>::Type;

/// Numbers in a vector of T.
template <class T>
inline constexpr std::int64_t kLanes = kNativeVectorBytes / sizeof(T);

template <class T>
concept VectorType = requires(T x) {
  x[0];
  x + x;
  requires std::is_arithmetic_v<std::remove_cvref_t<decltype(x[0])>>;
};

template <VectorType T>
struct ValueTraits<T> {
  using Element = std::remove_cvref_t<decltype(std::declval<T&>()[0])>;
  using Bits = Vector<typename ValueTraits<Element>::Bits, sizeof(T)>;

  static T square_root(T x) {
#ifdef __AVX512F__  // masked: the plain one warns of an uninitialised value of its own (GCC 12)
    if constexpr (std::is_same_v<T, Vector<float, 64>>) return T(_mm512_maskz_sqrt_ps(0xFFFF, __m512(x)));
    if constexpr (std::is_same_v<T, Vector<double, 64>>) return T(_mm512_maskz_sqrt_pd(0xFF, __m512d(x)));
#endif
#ifdef __AVX__
    if constexpr (std::is_same_v<T, Vector<float, 32>>) return T(_mm256_sqrt_ps(__m256(x)));
    if constexpr (std::is_same_v<T, Vector<double, 32>>) return T(_mm256_sqrt_pd(__m256d(x)));
#endif
    T root;
    for (std::size_t i = 0; i < sizeof(T) / sizeof(Element); ++i) root[i] = std::sqrt(x[i]);
    return root;
  }
};

/// The vector at any address.
template <class V, class T>
V load_as(const T* from) {
  V value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <class T>
Vector<T> load(const T* from) {
  return load_as<Vector<T>>(from);
}
template <class T>
void store(T* to, Vector<T> value) {
  std::memcpy(to, &value, sizeof value);
}
/// Its first `count` lanes, fewer than all; the others are 0.
template <class T>
Vector<T> load_part(const T* from, std::int64_t count) {
  Vector<T> value{};
  std::memcpy(&value, from, static_cast<std::size_t>(count) * sizeof(T));
  return value;
}
template <class T>
void store_part(T* to, Vector<T> value, std::int64_t count) {
  std::memcpy(to, &value, static_cast<std::size_t>(count) * sizeof(T));
}

/// Stores past the caches, to an address that is a multiple of kNativeVectorBytes. Behind the last one:
/// `end_streaming`.
template <class T>
void stream(T* to, Vector<T> value) {
#if defined(__AVX512F__)
  _mm512_stream_si512(reinterpret_cast<__m512i*>(to), __m512i(value));
#elif defined(__AVX__)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(to), __m256i(value));
#elif defined(__SSE2__)
  _mm_stream_si128(reinterpret_cast<__m128i*>(to), __m128i(value));
#else
  store(to, value);
#endif
}
inline void end_streaming() {
#ifdef __SSE2__
  _mm_sfence();
#endif
}

/// The products of the low halves of 64-bit numbers.
inline Vector<std::uint64_t> low_product(Vector<std::uint64_t> a, Vector<std::uint64_t> b) {
#if defined(__AVX512F__)
  return Vector<std::uint64_t>(_mm512_maskz_mul_epu32(0xFF, __m512i(a), __m512i(b)));
#elif defined(__AVX2__)
  return Vector<std::uint64_t>(_mm256_mul_epu32(__m256i(a), __m256i(b)));
#else
  constexpr std::uint64_t kLow = 0xFFFFFFFF;
  return (a & kLow) * (b & kLow);
#endif
}

/// The value with lanes `count` and above 0.
template <class V>
V first_lanes(V value, std::int64_t count) {
  using Element = ElementOf<V>;
  typename ValueTraits<V>::Bits index;
  for (std::size_t i = 0; i < sizeof(V) / sizeof(Element); ++i) index[i] = i;
  return index < static_cast<typename ValueTraits<Element>::Bits>(count) ? value : V{};
}

/// The sum of all lanes.
template <class V>
ElementOf<V> sum_of_lanes(V value) {
  if constexpr (sizeof(V) > 16) {
    using Half = Vector<ElementOf<V>, sizeof(V) / 2>;
    Half halves[2];
    std::memcpy(halves, &value, sizeof value);
    return sum_of_lanes(halves[0] + halves[1]);
  } else {
    ElementOf<V> sum = value[0];
    for (std::size_t i = 1; i < sizeof(V) / sizeof(ElementOf<V>); ++i) sum += value[i];
    return sum;
  }
}

}  // namespace annulus
