#include "runtime/core/shape.h"

#include "runtime/core/error.h"

namespace annulus {

Shape::Shape(std::initializer_list<std::int64_t> extents) {
  for (std::int64_t extent : extents) append(extent);
}

void Shape::append(std::int64_t extent) {
  if (rank_ == kMaxRank) throw ShapeError("a value has at most 4 dims");
  if (extent < 0) throw ShapeError("an extent is negative: " + std::to_string(extent));
  extents_[static_cast<std::size_t>(rank_++)] = extent;
}

std::int64_t Shape::elements(int begin, int end) const {
  std::int64_t product = 1;
  for (int dim = begin; dim < end; ++dim) product *= (*this)[dim];
  return product;
}

std::string Shape::str() const {
  std::string text = "[";
  for (int dim = 0; dim < rank_; ++dim) text += (dim ? ", " : "") + std::to_string((*this)[dim]);
  return text + "]";
}

}  // namespace annulus
