#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

namespace annulus {

/// Extents of a value, outermost dim first; row-major and dense. Rank 0 is a scalar of one element.
class Shape {
 public:
  static constexpr int kMaxRank = 4;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> extents);

  int rank() const { return rank_; }
  std::int64_t operator[](int dim) const { return extents_[static_cast<std::size_t>(dim)]; }
  std::int64_t& operator[](int dim) { return extents_[static_cast<std::size_t>(dim)]; }
  void append(std::int64_t extent);

  std::int64_t elements() const { return elements(0, rank_); }
  /// Product of the extents of dims [begin, end).
  std::int64_t elements(int begin, int end) const;
  /// Extent of dim 0 (1 for a scalar), and the product of the others: the value seen as a matrix.
  std::int64_t rows() const { return rank_ == 0 ? 1 : extents_[0]; }
  std::int64_t columns() const { return rank_ == 0 ? 1 : elements(1, rank_); }

  bool operator==(const Shape& other) const = default;
  /// As in `[4, 3, 64]`.
  std::string str() const;

 private:
  std::array<std::int64_t, kMaxRank> extents_{};
  int rank_ = 0;
};

}  // namespace annulus
