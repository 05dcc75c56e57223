#pragma once

#include <cstdint>

/// Marks code that kernels call. Kernel bodies are templates over a *block context*: on a GPU that of the hardware
/// (block_context.cuh), in tests one that runs a block's threads as fibers on the CPU. A context has
///   int thread(), threads()        of the block; threads() is a multiple of kWarp
///   std::int64_t index()           of the block in the grid
///   void sync()                    waits for all threads of the block
///   T shuffle_xor(T, int lanes)    the value of the thread whose lane differs by `lanes`; all threads of the warp call
///   std::byte* shared()            the block's shared memory, aligned to 16 bytes
///   void count_pairs(std::int64_t) what attention visits; nothing on a GPU
/// ANNULUS_UNROLL stands before loops over arrays that must be registers on a GPU.
#ifdef __CUDACC__
#define ANNULUS_BODY __device__
#define ANNULUS_UNROLL _Pragma("unroll")
#else
#define ANNULUS_BODY
#define ANNULUS_UNROLL
#endif

namespace annulus {

inline constexpr int kWarp = 32;
/// Threads of a block, where a kernel has no reason for another number.
inline constexpr int kThreads = 256;

/// The size of one launch.
struct Grid {
  std::int64_t blocks = 0;
  std::int64_t shared_bytes = 0;
  int threads = kThreads;
};

constexpr std::int64_t divide_up(std::int64_t count, std::int64_t size) { return (count + size - 1) / size; }

struct AddValues {
  template <class T>
  ANNULUS_BODY T operator()(T a, T b) const {
    return a + b;
  }
};
struct LargerValue {
  template <class T>
  ANNULUS_BODY T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};

/// Combines `value` over groups of `lanes` neighbouring threads (a power of two, a warp at most): all get the result.
template <class Block, class T, class Combine>
ANNULUS_BODY T reduce_lanes(Block& block, T value, int lanes, Combine combine) {
  for (int distance = lanes / 2; distance > 0; distance /= 2) {
    value = combine(value, block.shuffle_xor(value, distance));
  }
  return value;
}

/// Combines `value` over the block: all threads get the result. Uses the first kWarp * sizeof(T) bytes of shared
/// memory, which must be free, and are free again when the next `sync` is passed.
template <class Block, class T, class Combine>
ANNULUS_BODY T reduce_block(Block& block, T value, T neutral, Combine combine) {
  T* const of_warp = reinterpret_cast<T*>(block.shared());
  value = reduce_lanes(block, value, kWarp, combine);
  block.sync();
  if (block.thread() % kWarp == 0) of_warp[block.thread() / kWarp] = value;
  block.sync();
  const int lane = block.thread() % kWarp;
  return reduce_lanes(block, lane < block.threads() / kWarp ? of_warp[lane] : neutral, kWarp, combine);
}

/// Shared memory of `reduce_block`.
template <class T>
constexpr std::int64_t reduction_bytes() {
  return kWarp * static_cast<std::int64_t>(sizeof(T));
}

/// Calls `element(i)` for every i in [0, count).
template <class Element>
struct ForEach {
  Element element;
  std::int64_t count, blocks;

  template <class Block>
  ANNULUS_BODY void operator()(Block& block) const {
    const std::int64_t first = block.index() * block.threads() + block.thread();
    for (std::int64_t i = first; i < count; i += blocks * block.threads()) element(i);
  }
};

/// Launches `element` on [0, count).
template <class Launcher, class Element>
void for_each(const Launcher& launcher, std::int64_t count, Element element) {
  const std::int64_t needed = divide_up(count, kThreads), most = launcher.blocks_at_once();
  const std::int64_t blocks = needed < most ? needed : most;
  launcher({blocks}, ForEach<Element>{element, count, blocks});
}

}  // namespace annulus
