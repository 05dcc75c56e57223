#pragma once

#include <cstdint>

#include "runtime/core/random.h"

namespace annulus {

/// A pseudo-random permutation of [0, size) that needs no memory: a Feistel network (Luby and Rackoff 1988) over
/// Philox, on the smallest even number of bits, walked along its cycle until it is back in range (Black and Rogaway
/// 2002).
class Permutation {
 public:
  /// `size` is at least 1.
  Permutation(PhiloxKey key, std::int64_t size);
  /// Where `index`, in [0, size), goes.
  std::int64_t operator()(std::int64_t index) const;

 private:
  std::uint64_t once(std::uint64_t value) const;

  PhiloxKey key_;
  std::uint64_t size_;
  int half_bits_ = 1;
};

}  // namespace annulus
