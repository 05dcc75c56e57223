#pragma once

#include <bit>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <type_traits>

namespace annulus {

/// What formulas ask of the type that they are written for: a number here; a vector of numbers in
/// runtime/core/vector.h. `Bits` has the integer of the same size in every lane.
template <class T>
struct ValueTraits;

template <std::floating_point T>
struct ValueTraits<T> {
  using Element = T;
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  static constexpr T square_root(T x) { return std::sqrt(x); }
};

/// The type of a value's numbers.
template <class T>
using ElementOf = typename ValueTraits<T>::Element;

/// Element functions without branches or tables, of a number or a vector alike, on any device (`constexpr` lets device
/// code call them). Errors against exact values: a few units in the last place. NaN gives NaN.

namespace math_detail {

/// The polynomial of these coefficients, highest power first. Arguments, since device code cannot refer to the host's
/// arrays.
template <class T, std::same_as<ElementOf<T>>... Lower>
constexpr T polynomial(T x, ElementOf<T> highest, ElementOf<T> next, Lower... lower) {
  T sum = x * highest + next;
  ((sum = sum * x + lower), ...);
  return sum;
}

template <class T>
struct ExponentialConstants;

template <>
struct ExponentialConstants<float> {
  static constexpr float kLowest = -86.5f,
                         kHighest = 88.8f;      // below the lowest the result is 0, above the highest infinite
  static constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  static constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  static constexpr int kMantissaBits = 23;
  static constexpr std::uint32_t kBias = 126;
  // (e^r - 1 - r) / r^2 on [-ln 2 / 2, ln 2 / 2] (Moshier, Cephes, expf)
  template <class T>
  static constexpr T series(T x) {
    return polynomial(x, 1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f,
                      5.0000001201e-1f);
  }
};

template <>
struct ExponentialConstants<double> {
  static constexpr double kLowest = -707.0, kHighest = 709.9;
  static constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double kLn2High = 6.93145751953125e-1, kLn2Low = 1.42860682030941723212e-6;
  static constexpr int kMantissaBits = 52;
  static constexpr std::uint64_t kBias = 1022;
  // Taylor: the first term left out is below 2^-57 of the sum
  template <class T>
  static constexpr T series(T x) {
    return polynomial(x, 1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320,
                      1.0 / 5040, 1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 1.0 / 2);
  }
};

/// 2^x on [-1/2, 1/2], 1 at 0, fitted by Remez' exchange to a relative error of 9.1e-8, or 3e-18.
template <class T>
struct PowerConstants;

template <>
struct PowerConstants<float> {
  static constexpr float kLowest = -127;
  template <class T>
  static constexpr T series(T x) {
    return polynomial(x, 1.32647290386e-3f, 9.67151264013e-3f, 5.55073373803e-2f, 2.40222420855e-1f, 6.93146977601e-1f,
                      1.0f);
  }
};

template <>
struct PowerConstants<double> {
  static constexpr double kLowest = -1023;
  template <class T>
  static constexpr T series(T x) {
    return polynomial(x, 4.4352827069572771511e-10, 7.0741056135081427963e-9, 1.0178198021671930844e-7,
                      1.321543308967639918e-6, 1.5252733489988525649e-5, 1.5403530462514432062e-4,
                      1.3333558146789921722e-3, 9.6181291075883352443e-3, 5.5504108664819921605e-2,
                      2.4022650695910156204e-1, 6.9314718055994533046e-1, 1.0);
  }
};

template <class T>
struct ErrorFunctionConstants;

/// Fitted by least squares in relative error: erf(x)/x - 1 in x^2, and -log(1 - erf(x)) in x.
template <>
struct ErrorFunctionConstants<float> {
  static constexpr float kSquareOfJoint = 0.9f, kHighest = 3.95f;  // beyond the highest erf is 1
  template <class T>
  static constexpr T head(T x) {
    return polynomial(x, 8.188191818e-5f, -8.098352362e-4f, 5.196998387e-3f, -2.685771739e-2f, 1.128366405e-1f,
                      -3.761263160e-1f, 1.283791664e-1f);
  }
  template <class T>
  static constexpr T tail(T x) {
    return polynomial(x, 2.148280722e-5f, -4.388835144e-4f, 4.192204460e-3f, -2.517442339e-2f, 1.083641830e-1f,
                      6.332712743e-1f, 1.129552002e+0f, -1.823300594e-4f);
  }
};

/// Quotients of Cephes (Moshier, ndtr.c): erf(x)/x in x^2, and (1 - erf(x)) e^(x^2) in x.
template <>
struct ErrorFunctionConstants<double> {
  static constexpr double kSquareOfJoint = 1, kHighest = 6;
  template <class T>
  static constexpr T head_above(T x) {
    return polynomial(x, 9.60497373987051638749e0, 9.00260197203842689217e1, 2.23200534594684319226e3,
                      7.00332514112805075473e3, 5.55923013010394962768e4);
  }
  template <class T>
  static constexpr T head_below(T x) {
    return polynomial(x, 1.0, 3.35617141647503099647e1, 5.21357949780152679795e2, 4.59432382970980127987e3,
                      2.26290000613890934246e4, 4.92673942608635921086e4);
  }
  template <class T>
  static constexpr T tail_above(T x) {
    return polynomial(x, 2.46196981473530512524e-10, 5.64189564831068821977e-1, 7.46321056442269912687e0,
                      4.86371970985681366614e1, 1.96520832956077098242e2, 5.26445194995477358631e2,
                      9.34528527171957607540e2, 1.02755188689515710272e3, 5.57535335369399327526e2);
  }
  template <class T>
  static constexpr T tail_below(T x) {
    return polynomial(x, 1.0, 1.32281951154744992508e1, 8.67072140885989742329e1, 3.54937778887819891062e2,
                      9.75708501743205489753e2, 1.82390916687909736289e3, 2.24633760818710981792e3,
                      1.65666309194161350182e3, 5.57535340817727675546e2);
  }
};

}  // namespace math_detail

/// e^x. Results below the smallest normal number are 0.
template <class T>
constexpr T exponential(T x) {
  using Element = ElementOf<T>;
  using C = math_detail::ExponentialConstants<Element>;
  using Bits = typename ValueTraits<T>::Bits;
  const T low = x < C::kLowest ? C::kLowest : x;
  const T clamped = low > C::kHighest ? C::kHighest : low;
  const T shifted = clamped * Element(1.44269504088896340736) + C::kRound;
  const T n = shifted - C::kRound;
  const T r = (clamped - n * C::kLn2High) - n * C::kLn2Low;
  const T value = C::series(r) * (r * r) + (r + Element(1));
  // 2^(n-1), doubled by the sum: 2^n itself overflows where the result does not
  const T scale = std::bit_cast<T>((std::bit_cast<Bits>(shifted) + C::kBias) << C::kMantissaBits);
  const T result = (value + value) * scale;
  return x < C::kLowest ? Element(0) : result;
}

/// 2^x for x of at most 100: softmax's exponential, without a product to begin with. 0 where x is too low for a normal
/// number; errors of one or two units in the last place.
template <class T>
constexpr T power_of_two(T x) {
  using Element = ElementOf<T>;
  using C = math_detail::ExponentialConstants<Element>;
  using P = math_detail::PowerConstants<Element>;
  using Bits = typename ValueTraits<T>::Bits;
  const T clamped = x < P::kLowest ? P::kLowest : x;
  const T shifted = clamped + C::kRound;
  const T value = P::series(clamped - (shifted - C::kRound));
  // n is added to the exponent: the lowest n cancels that of 1, and leaves 0
  return std::bit_cast<T>(std::bit_cast<Bits>(value) + (std::bit_cast<Bits>(shifted) << C::kMantissaBits));
}

/// 1 / (1 + e^-x). tanh(x) is 2 logistic(2x) - 1.
template <class T>
constexpr T logistic(T x) {
  using Element = ElementOf<T>;
  return Element(1) / (Element(1) + exponential(-x));
}

/// erf(x).
template <class T>
constexpr T error_function(T x) {
  using Element = ElementOf<T>;
  using C = math_detail::ErrorFunctionConstants<Element>;
  const T square = x * x, magnitude = x < 0 ? -x : x;
  const T t = magnitude > C::kHighest ? C::kHighest : magnitude;
  T head, rest;  // the rest is 1 - erf(|x|)
  if constexpr (std::is_same_v<Element, float>) {
    head = C::head(square) * x + x;
    rest = exponential(-C::tail(t));
  } else {
    head = x * C::head_above(square) / C::head_below(square);
    rest = exponential(-t * t) * C::tail_above(t) / C::tail_below(t);
  }
  const T far = Element(1) - rest;
  const T signed_far = x < 0 ? -far : far;
  return square > C::kSquareOfJoint ? signed_far : head;
}

}  // namespace annulus
