#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "runtime/core/error.h"
#include "runtime/core/half.h"

namespace annulus {

/// Element types of values. bf16 and f16 (runtime/core/half.h) are types to store in: computed is in f32.
enum class DType : std::uint8_t { f32, f64, i32, bf16, f16 };

constexpr std::int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::f64:
      return 8;
    case DType::bf16:
    case DType::f16:
      return 2;
  }
  return 0;
}

constexpr std::string_view name_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "f32";
    case DType::f64:
      return "f64";
    case DType::i32:
      return "i32";
    case DType::bf16:
      return "bf16";
    case DType::f16:
      return "f16";
  }
  return "?";
}

constexpr bool is_float(DType dtype) { return dtype != DType::i32; }
constexpr bool is_half(DType dtype) { return dtype == DType::bf16 || dtype == DType::f16; }

/// The type of what must be more precise than a value of `dtype`: statistics, sums, gradients of weights, master
/// weights. f32 for halves, `dtype` itself for others.
constexpr DType wide(DType dtype) { return is_half(dtype) ? DType::f32 : dtype; }

template <class T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<float>() {
  return DType::f32;
}
template <>
constexpr DType dtype_of<double>() {
  return DType::f64;
}
template <>
constexpr DType dtype_of<std::int32_t>() {
  return DType::i32;
}

template <>
constexpr DType dtype_of<BFloat16>() {
  return DType::bf16;
}
template <>
constexpr DType dtype_of<Float16>() {
  return DType::f16;
}

/// Calls `function(T{})` with T the C++ type of a `dtype` that is computed in: f32 or f64. Throws InternalError for
/// others.
template <class Function>
decltype(auto) dispatch_float(DType dtype, Function&& function) {
  switch (dtype) {
    case DType::f32:
      return std::forward<Function>(function)(float{});
    case DType::f64:
      return std::forward<Function>(function)(double{});
    default:
      throw InternalError("dispatch_float: " + std::string(name_of(dtype)) + " is not computed in");
  }
}

/// The same for the halves.
template <class Function>
decltype(auto) dispatch_half(DType dtype, Function&& function) {
  if (dtype == DType::bf16) return std::forward<Function>(function)(BFloat16{});
  if (dtype == DType::f16) return std::forward<Function>(function)(Float16{});
  throw InternalError("dispatch_half: " + std::string(name_of(dtype)) + " is no half");
}

/// The same for every float that is stored.
template <class Function>
decltype(auto) dispatch_stored(DType dtype, Function&& function) {
  if (is_half(dtype)) return dispatch_half(dtype, std::forward<Function>(function));
  return dispatch_float(dtype, std::forward<Function>(function));
}

}  // namespace annulus
