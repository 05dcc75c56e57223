#pragma once

#include <cstdint>
#include <string_view>
#include <utility>

#include "runtime/core/error.h"

namespace annulus {

/// Element types of values. Nothing may assume a size: narrower floats follow.
enum class DType : std::uint8_t { f32, f64, i32 };

constexpr std::int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::f64:
      return 8;
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
  }
  return "?";
}

constexpr bool is_float(DType dtype) { return dtype == DType::f32 || dtype == DType::f64; }

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

/// Calls `function(T{})` with T the C++ type of a floating `dtype`. Throws InternalError for others.
template <class Function>
decltype(auto) dispatch_float(DType dtype, Function&& function) {
  switch (dtype) {
    case DType::f32:
      return std::forward<Function>(function)(float{});
    case DType::f64:
      return std::forward<Function>(function)(double{});
    case DType::i32:
      break;
  }
  throw InternalError("dispatch_float: not a floating type");
}

}  // namespace annulus
