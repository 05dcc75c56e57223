#pragma once

#include "runtime/cpu/parallel.h"
#include "runtime/cpu/vector_loops.h"

namespace annulus {

/// All of `count` elements become 0, by all threads.
template <class T>
void set_to_zero(T* to, std::int64_t count) {
  const Stores stores = stores_for(count * static_cast<std::int64_t>(sizeof(T)));
  parallel_ranges(count, 16384, [=](std::int64_t begin, std::int64_t end) {
    transform(stores, to + begin, end - begin, [] { return Vector<T>{}; });
  });
}

}  // namespace annulus
