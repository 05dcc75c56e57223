#pragma once

#include <algorithm>
#include <cstdint>

#include "runtime/core/vector.h"

namespace annulus {

inline constexpr std::int64_t kBytesAhead = 2048;

/// Asks for what stands so far behind `address` that it has come when a pass reaches it. Processors do that unasked,
/// but passes that compute much between two loads were seen to take half the time with it.
template <std::int64_t Bytes = kBytesAhead, class T>
void prefetch_ahead(const T* address) {
  __builtin_prefetch(reinterpret_cast<const char*>(address) + Bytes);
}

/// How results are written: `streamed` past the caches, which spares reading their lines first.
enum class Stores : std::uint8_t { cached, streamed };

/// Streamed where caches could not hold the result of so many bytes until it is read again.
constexpr Stores stores_for(std::int64_t bytes) {
  constexpr std::int64_t kLarge = std::int64_t{32} << 20;
  return bytes < kLarge ? Stores::cached : Stores::streamed;
}

/// to[i] = function(from[i]...) for i in [0, count): `function` takes and gives vectors, the last of them padded by 0.
template <class T, class Function, class... From>
void transform(Stores stores, T* to, std::int64_t count, const Function& function, const From*... from) {
  std::int64_t i = 0;
  const auto part = [&](std::int64_t size) {
    store_part(to + i, function(load_part(from + i, size)...), size);
    i += size;
  };
  if (stores == Stores::streamed) {
    const auto behind =
        static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(to) % kNativeVectorBytes / sizeof(T));
    if (behind > 0) part(std::min(count, kLanes<T> - behind));
    for (; i + kLanes<T> <= count; i += kLanes<T>) {
      (prefetch_ahead(from + i), ...);
      stream(to + i, function(load(from + i)...));
    }
    end_streaming();
  } else {
    for (; i + kLanes<T> <= count; i += kLanes<T>) {
      (prefetch_ahead(from + i), ...);
      store(to + i, function(load(from + i)...));
    }
  }
  if (i < count) part(count - i);
}
template <class T, class Function, class... From>
void transform(T* to, std::int64_t count, const Function& function, const From*... from) {
  transform(Stores::cached, to, count, function, from...);
}

/// The sum of function(from[i]) for i in [0, count), in an order that depends on the count alone.
template <std::int64_t Ahead = kBytesAhead, class T, class Function>
T sum_over(std::int64_t count, const Function& function, const T* from) {
  constexpr std::int64_t kSums = 4;  // so many additions are on their way at once
  Vector<T> sums[kSums] = {};
  std::int64_t i = 0;
  for (; i + kSums * kLanes<T> <= count; i += kSums * kLanes<T>) {
#pragma GCC unroll 4
    for (std::int64_t k = 0; k < kSums; ++k) {
      const T* at = from + i + k * kLanes<T>;
      prefetch_ahead<Ahead>(at);
      sums[k] += function(load(at));
    }
  }
  for (; i + kLanes<T> <= count; i += kLanes<T>) sums[0] += function(load(from + i));
  if (i < count) sums[1] += first_lanes(function(load_part(from + i, count - i)), count - i);
  return sum_of_lanes((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

}  // namespace annulus
