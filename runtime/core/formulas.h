#pragma once

#include <limits>

#include "runtime/core/math.h"

namespace annulus {

/// What kernels compute of one element, written once for all devices: `T` is a number, or a vector of them where the
/// device computes with vectors.

/// x/2 (1 + tanh u) is x logistic(2u), with u = sqrt(2 / pi) (x + 0.044715 x^3).
struct TanhGelu {
  template <class T>
  static constexpr T value(T x) {
    return x * gate(x);
  }
  template <class T>
  static constexpr T slope(T x) {
    using Element = ElementOf<T>;
    const T s = gate(x);
    return s + x * s * (Element(1) - s) * (Element(kOuter) * (Element(1) + Element(3 * kInner) * x * x));
  }

 private:
  static constexpr double kOuter = 1.59576912160573071176, kInner = 0.044715;  // 2 sqrt(2 / pi)
  template <class T>
  static constexpr T gate(T x) {
    using Element = ElementOf<T>;
    return logistic(Element(kOuter) * (x + Element(kInner) * x * x * x));
  }
};

/// x Phi(x), Phi the normal distribution function.
struct ErfGelu {
  template <class T>
  static constexpr T value(T x) {
    return x * distribution(x);
  }
  template <class T>
  static constexpr T slope(T x) {
    using Element = ElementOf<T>;
    constexpr auto kDensity = Element(0.39894228040143267794);  // 1 / sqrt(2 pi)
    return distribution(x) + x * kDensity * exponential(Element(-0.5) * x * x);
  }

 private:
  template <class T>
  static constexpr T distribution(T x) {
    using Element = ElementOf<T>;
    return Element(0.5) * (Element(1) + error_function(x * Element(0.70710678118654752440)));  // sqrt(1 / 2)
  }
};

/// What one step of AdamW needs, in the type of the weights.
template <class Element>
struct AdamWStep {
  Element gradient_factor, beta1, complement1, beta2, complement2, rate, inverse_correction1, root_inverse_correction2,
      epsilon, decay;
};

/// Updates an element and its moments (Loshchilov & Hutter 2019, as torch.optim.AdamW: decay, then the bias-corrected
/// step); a factor of 0 leaves all as it is.
template <class T>
constexpr void adamw_element(T& weight, T grad, T& m, T& v, const AdamWStep<ElementOf<T>>& step) {
  if (step.gradient_factor == 0) return;
  const T g = grad * step.gradient_factor;
  m = step.beta1 * m + step.complement1 * g;
  v = step.beta2 * v + step.complement2 * g * g;
  const T root = ValueTraits<T>::square_root(v) * step.root_inverse_correction2 + step.epsilon;
  weight -= step.rate * (m * step.inverse_correction1 / root + step.decay * weight);
}

/// The statistics of a row that layer norm normalises: its mean, and 1 / sqrt(variance + epsilon).
template <class Element>
struct RowStatistics {
  Element mean, inverse;
};

template <class T>
constexpr T normalized(T x, const RowStatistics<ElementOf<T>>& row) {
  return (x - row.mean) * row.inverse;
}

/// The gradient of layer norm's input: `slope` is dy gamma; the means are those of slope and of slope times normalized.
template <class T>
constexpr T layer_norm_slope(T x, T slope, const RowStatistics<ElementOf<T>>& row, ElementOf<T> mean_slope,
                             ElementOf<T> mean_projected) {
  return row.inverse * (slope - mean_slope - normalized(x, row) * mean_projected);
}

/// What exponentials of logits are taken relative to, which is the largest met so far: a number also where all of them
/// are -infinity.
template <class T>
constexpr T softmax_reference(T largest) {
  return largest < std::numeric_limits<T>::lowest() ? T(0) : largest;
}

/// weight times a logit's probability, as `scale` = weight / (the row's sum of exponentials).
template <class T>
constexpr T scaled_probability(T logit, ElementOf<T> largest, ElementOf<T> scale) {
  return exponential(logit - largest) * scale;
}

}  // namespace annulus
