#pragma once

#include <cstdint>

#include "runtime/ops/elementwise.h"

namespace annulus {

/// y = gelu(x) of `count` elements, on this thread; y may be x. T is float or double.
template <class T>
void gelu_elements(Activation activation, const T* x, T* y, std::int64_t count);

/// dx = gelu'(x) dy, in the same way; dx may be dy.
template <class T>
void gelu_grad_elements(Activation activation, const T* x, const T* dy, T* dx, std::int64_t count);

}  // namespace annulus
