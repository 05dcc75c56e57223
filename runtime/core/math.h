#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <concepts>
#include <cstdint>

namespace annulus {

/// Element functions without branches or tables, so that a loop over them becomes vector code, on any device.
/// Errors against exact values: a few units in the last place. NaN gives NaN. `constexpr` lets device code call them.

namespace math_detail {

template <class T>
struct ExponentialConstants;

template <>
struct ExponentialConstants<float> {
  using Bits = std::uint32_t;
  static constexpr float kLowest = -86.5f,
                         kHighest = 88.8f;      // below the lowest the result is 0, above the highest infinite
  static constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  static constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  static constexpr int kMantissaBits = 23;
  static constexpr Bits kBias = 126;
  // (e^r - 1 - r) / r^2 on [-ln 2 / 2, ln 2 / 2] (Moshier, Cephes, expf)
  static constexpr std::array kSeries = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                                         4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
};

template <>
struct ExponentialConstants<double> {
  using Bits = std::uint64_t;
  static constexpr double kLowest = -707.0, kHighest = 709.9;
  static constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double kLn2High = 6.93145751953125e-1, kLn2Low = 1.42860682030941723212e-6;
  static constexpr int kMantissaBits = 52;
  static constexpr Bits kBias = 1022;
  // Taylor: the first term left out is below 2^-57 of the sum
  static constexpr std::array kSeries = {1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800,
                                         1.0 / 362880,     1.0 / 40320,     1.0 / 5040,     1.0 / 720,
                                         1.0 / 120,        1.0 / 24,        1.0 / 6,        1.0 / 2};
};

}  // namespace math_detail

/// e^x. Results below the smallest normal number are 0.
template <std::floating_point T>
constexpr T exponential(T x) {
  using C = math_detail::ExponentialConstants<T>;
  using Bits = typename C::Bits;
  const T low = x < C::kLowest ? C::kLowest : x;
  const T clamped = low > C::kHighest ? C::kHighest : low;
  const T shifted = clamped * T(1.44269504088896340736) + C::kRound;
  const T n = shifted - C::kRound;
  const T r = (clamped - n * C::kLn2High) - n * C::kLn2Low;
  constexpr auto kSeries = C::kSeries;  // a local copy: device code cannot index a member of the host's
  T series = kSeries[0];
  for (std::size_t i = 1; i < kSeries.size(); ++i) series = series * r + kSeries[i];
  const T value = series * (r * r) + (r + T(1));
  // 2^(n-1), doubled by the sum: 2^n itself overflows where the result does not
  const T scale = std::bit_cast<T>(static_cast<Bits>((std::bit_cast<Bits>(shifted) + C::kBias) << C::kMantissaBits));
  const T result = (value + value) * scale;
  return x < C::kLowest ? T(0) : result;
}

/// 1 / (1 + e^-x). tanh(x) is 2 logistic(2x) - 1.
template <std::floating_point T>
constexpr T logistic(T x) {
  return T(1) / (T(1) + exponential(-x));
}

/// erf(x).
constexpr double error_function(double x) { return std::erf(x); }

constexpr float error_function(float x) {
  // fitted by least squares in relative error: erf(x)/x - 1 in x^2 up to 0.9, and -log(1 - erf(x)) from there to 3.95
  const float s = x * x;
  float head = 8.188191818e-5f;
  head = head * s - 8.098352362e-4f;
  head = head * s + 5.196998387e-3f;
  head = head * s - 2.685771739e-2f;
  head = head * s + 1.128366405e-1f;
  head = head * s - 3.761263160e-1f;
  head = head * s + 1.283791664e-1f;
  head = head * x + x;
  const float magnitude = x < 0 ? -x : x;
  const float t = magnitude > 3.95f ? 3.95f : magnitude;
  float tail = 2.148280722e-5f;
  tail = tail * t - 4.388835144e-4f;
  tail = tail * t + 4.192204460e-3f;
  tail = tail * t - 2.517442339e-2f;
  tail = tail * t + 1.083641830e-1f;
  tail = tail * t + 6.332712743e-1f;
  tail = tail * t + 1.129552002e+0f;
  tail = tail * t - 1.823300594e-4f;
  const float far = 1.0f - exponential(-tail);
  const float signed_far = x < 0 ? -far : far;
  return s > 0.9f ? signed_far : head;
}

}  // namespace annulus
