#pragma once

#include <cstdint>

namespace annulus {

/// Rows of a packed operand come in whole numbers of these.
inline constexpr std::int64_t kPackedDepth = 16;

/// Packs a row-major matrix [depth, columns], whose rows lie `stride` elements apart, by blocks of columns: one behind
/// another, each row-major with rows of `block` elements, a multiple of 16. Rows up to a multiple of kPackedDepth and
/// columns up to one of `block` are 0. That is oneDNN's layout BA16a<block>b; its own reorder walks down the columns of
/// a block, which takes up to three times as long where rows are whole pages.
void pack_columns(const float* from, std::int64_t depth, std::int64_t columns, std::int64_t stride, std::int64_t block,
                  float* to);

}  // namespace annulus
