#include "runtime/training/permutation.h"

#include "runtime/core/error.h"

namespace annulus {

Permutation::Permutation(PhiloxKey key, std::int64_t size) : key_(key), size_(static_cast<std::uint64_t>(size)) {
  if (size < 1) throw InternalError("a permutation of nothing");
  while ((size_ - 1) >> (2 * half_bits_) != 0) ++half_bits_;
}

std::uint64_t Permutation::once(std::uint64_t value) const {
  constexpr std::uint64_t kRounds = 8;  // 4 suffice for many bits; for few, more mix better
  const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
  std::uint64_t left = value >> half_bits_, right = value & mask;
  for (std::uint64_t round = 0; round < kRounds; ++round) {
    const std::uint64_t next = left ^ (random_bits(key_, (round << 32) | right) & mask);
    left = right;
    right = next;
  }
  return (left << half_bits_) | right;
}

std::int64_t Permutation::operator()(std::int64_t index) const {
  auto value = static_cast<std::uint64_t>(index);
  do value = once(value);
  while (value >= size_);
  return static_cast<std::int64_t>(value);
}

}  // namespace annulus
