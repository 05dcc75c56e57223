#pragma once

#include <cmath>
#include <limits>

#include "runtime/core/math.h"

namespace annulus {

/// How two results of attention on different keys, each normalised, become that on all of them: out = kept * one out +
/// added * the other. A log-sum-exp of -infinity says that no key was seen, and its out does not count.
/// Source: the running softmax of FlashAttention (arXiv:2205.14135), section 3.1.
template <class T>
struct AttentionMerge {
  T kept, added, lse;

  static constexpr AttentionMerge of(T one, T other) {
    const T largest = one > other ? one : other;
    if (largest == -std::numeric_limits<T>::infinity()) return {T(0), T(0), largest};
    const T left = exponential(one - largest), right = exponential(other - largest), sum = left + right;
    return {left / sum, right / sum, largest + std::log(sum)};
  }
};

}  // namespace annulus
