#pragma once

#include <cstddef>

#include "runtime/core/dtype.h"
#include "runtime/core/shape.h"

namespace annulus {

/// A view of elements that somebody else owns: never allocates, never frees.
struct Tensor {
  std::byte* data = nullptr;
  DType dtype = DType::f32;
  Shape shape;

  std::int64_t elements() const { return shape.elements(); }
  std::int64_t bytes() const { return shape.elements() * size_of(dtype); }

  /// The elements as `T`. Throws InternalError where `T` is not the tensor's type.
  template <class T>
  T* as() const {
    if (dtype_of<T>() != dtype)
      throw InternalError("a tensor of " + std::string(name_of(dtype)) + " is read as another type");
    return reinterpret_cast<T*>(data);
  }
};

}  // namespace annulus
