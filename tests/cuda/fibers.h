#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "runtime/cuda/block.h"

namespace annulus::testing {

class FiberScheduler;

/// A block context (see runtime/cuda/block.h) for one thread of a block on the CPU. Threads take turns at random, so
/// that a barrier that is missing shows, and a barrier that not all threads reach is an error, as it is undefined on a
/// GPU.
class FiberBlock {
 public:
  FiberBlock(FiberScheduler& scheduler, int thread) : scheduler_(scheduler), thread_(thread) {}

  int thread() const { return thread_; }
  int threads() const;
  std::int64_t index() const;
  void sync();
  std::byte* shared();
  void count_pairs(std::int64_t pairs);
  template <class T>
  T shuffle_xor(T value, int lanes) {
    turn_ = 1 - turn_;  // two sets of slots: before one is written again, all have passed the next barrier
    slot(thread_) = static_cast<double>(value);
    sync_warp();
    return static_cast<T>(slot(thread_ ^ lanes));
  }

 private:
  void sync_warp();
  double& slot(int thread);

  FiberScheduler& scheduler_;
  int thread_, turn_ = 0;
};

/// Runs blocks, each thread as a fiber with a stack of its own.
class FiberScheduler {
 public:
  explicit FiberScheduler(std::uint64_t seed);
  ~FiberScheduler();
  FiberScheduler(const FiberScheduler&) = delete;
  FiberScheduler& operator=(const FiberScheduler&) = delete;

  /// Runs `body` on every block of the grid. Throws what bodies throw, and InternalError at a barrier that cannot open.
  void run(const Grid& grid, const std::function<void(FiberBlock&)>& body);
  std::int64_t pairs() const { return pairs_; }

 private:
  friend class FiberBlock;
  enum class State : std::uint8_t { runnable, at_warp_barrier, at_block_barrier, finished };
  struct Fiber;

  static void enter(unsigned high, unsigned low);
  void run_block(const std::function<void(FiberBlock&)>& body);
  static void prepare(Fiber& fiber);
  void resume(Fiber& fiber);
  void wait(int thread, State at);
  bool open_barriers();

  std::mt19937_64 order_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  const std::function<void(FiberBlock&)>* body_ = nullptr;
  std::vector<std::byte> shared_;
  std::vector<double> slots_;
  Grid grid_;
  std::int64_t index_ = 0, pairs_ = 0;
  struct Switch;
  std::unique_ptr<Switch> scheduler_;
};

/// A launcher for bodies of runtime/cuda.
struct FiberLauncher {
  FiberScheduler& scheduler;
  template <class Body>
  void operator()(const Grid& grid, const Body& body) const {
    scheduler.run(grid, [&](FiberBlock& block) { body(block); });
  }
  /// Few, so that threads have several elements each.
  std::int64_t blocks_at_once() const { return 2; }
};

}  // namespace annulus::testing
