#pragma once

#include <cstdint>
#include <cstring>

#include "runtime/core/half.h"
#include "runtime/core/vector.h"

namespace annulus {

/// The bits of as many halves as a vector has floats.
using HalfBits = Vector<std::uint16_t, kNativeVectorBytes / 2>;

/// kLanes<float> numbers, widened; and rounded.
template <template <class> class Format>
Vector<float> load_wide(const HalfFloat<Format>* from) {
  return Format<Vector<float>>::widen(__builtin_convertvector(load_as<HalfBits>(from), Vector<std::uint32_t>));
}
template <template <class> class Format>
void store_narrow(HalfFloat<Format>* to, Vector<float> value) {
  const HalfBits bits = __builtin_convertvector(Format<Vector<float>>::narrow(value), HalfBits);
  std::memcpy(to, &bits, sizeof bits);
}

/// Copies `count` numbers from halves to floats, and back, rounded.
template <template <class> class Format>
void widen(const HalfFloat<Format>* from, float* to, std::int64_t count) {
  std::int64_t i = 0;
  for (; i + kLanes<float> <= count; i += kLanes<float>) store(to + i, load_wide(from + i));
  for (; i < count; ++i) to[i] = from[i];
}
template <template <class> class Format>
void narrow(const float* from, HalfFloat<Format>* to, std::int64_t count) {
  std::int64_t i = 0;
  for (; i + kLanes<float> <= count; i += kLanes<float>) store_narrow(to + i, load(from + i));
  for (; i < count; ++i) to[i] = HalfFloat<Format>(from[i]);
}

}  // namespace annulus
