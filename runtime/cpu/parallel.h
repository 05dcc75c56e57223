#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace annulus {

/// Threads that a kernel called from this thread may use.
inline int thread_count() {
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}

/// This thread's number among those of the parallel loop that it is in.
inline int thread_index() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

/// Calls `function(begin, end)` on contiguous parts of [0, count), one a thread, that begin at multiples of `grain`.
/// `function` must not throw, and what it computes for an element must not depend on where the parts begin.
template <class Function>
void parallel_ranges(std::int64_t count, std::int64_t grain, const Function& function) {
  const std::int64_t grains = (count + grain - 1) / grain;
  const std::int64_t parts = std::min<std::int64_t>(thread_count(), grains);
  if (parts <= 1) {
    if (count > 0) function(std::int64_t{0}, count);
    return;
  }
#pragma omp parallel for schedule(static, 1) num_threads(static_cast <int>(parts))
  for (std::int64_t part = 0; part < parts; ++part) {
    const std::int64_t begin = grains * part / parts * grain,
                       end = std::min(grains * (part + 1) / parts * grain, count);
    function(begin, end);
  }
}

/// Calls `function(task, thread)` for every task in [0, count), each on whichever of `thread_count()` threads is free:
/// put long ones first. Tasks begin in their order, so that one may wait for an earlier one. `function` must not throw;
/// tasks write to disjoint memory, or to memory of their thread.
template <class Function>
void parallel_tasks(std::int64_t count, const Function& function) {
  std::atomic<std::int64_t> next = 0;
#pragma omp parallel
  for (std::int64_t task = next++; task < count; task = next++) function(task, thread_index());
}

}  // namespace annulus
