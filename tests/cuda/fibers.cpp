#include "tests/cuda/fibers.h"

#include <ucontext.h>

#include <algorithm>
#include <exception>
#include <string>
#include <utility>

#include "runtime/core/error.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace annulus::testing {
namespace {

constexpr std::size_t kStackBytes = 128 * 1024;

/// Switches between stacks, and says so to the address sanitizer.
void switch_stacks(ucontext_t& from, const ucontext_t& to, [[maybe_unused]] const void* stack,
                   [[maybe_unused]] std::size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, stack, bytes);
#endif
  swapcontext(&from, &to);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

}  // namespace

struct FiberScheduler::Switch {
  ucontext_t context{};
  const void* stack = nullptr;  // the scheduler's, as its first fiber finds it
  std::size_t stack_bytes = 0;
};

struct FiberScheduler::Fiber {
  Fiber(FiberScheduler& of, int number) : scheduler(of), thread(number), stack(new std::byte[kStackBytes]) {}
  FiberScheduler& scheduler;
  int thread;
  State state = State::finished;
  ucontext_t context{};
  std::unique_ptr<std::byte[]> stack;
  std::exception_ptr failure;
};

int FiberBlock::threads() const { return scheduler_.grid_.threads; }
std::int64_t FiberBlock::index() const { return scheduler_.index_; }
void FiberBlock::sync() { scheduler_.wait(thread_, FiberScheduler::State::at_block_barrier); }
void FiberBlock::sync_warp() { scheduler_.wait(thread_, FiberScheduler::State::at_warp_barrier); }
std::byte* FiberBlock::shared() { return scheduler_.shared_.data(); }
void FiberBlock::count_pairs(std::int64_t pairs) { scheduler_.pairs_ += pairs; }
double& FiberBlock::slot(int thread) { return scheduler_.slots_[static_cast<std::size_t>(2 * thread + turn_)]; }

FiberScheduler::FiberScheduler(std::uint64_t seed) : order_(seed), scheduler_(std::make_unique<Switch>()) {}
FiberScheduler::~FiberScheduler() = default;

void FiberScheduler::run(const Grid& grid, const std::function<void(FiberBlock&)>& body) {
  if (grid.threads % kWarp != 0 || grid.threads > kThreads) throw InternalError("a block of an odd size");
  grid_ = grid;
  for (int thread = static_cast<int>(fibers_.size()); thread < grid.threads; ++thread) {
    fibers_.push_back(std::make_unique<Fiber>(*this, thread));
  }
  slots_.resize(static_cast<std::size_t>(2 * grid.threads));
  shared_.resize(static_cast<std::size_t>(grid.shared_bytes));
  shared_.shrink_to_fit();  // so that what lies behind it is not ours
  for (index_ = 0; index_ < grid.blocks; ++index_) {
    std::fill(shared_.begin(), shared_.end(), std::byte{0xFF});
    run_block(body);
  }
}

void FiberScheduler::run_block(const std::function<void(FiberBlock&)>& body) {
  body_ = &body;
  std::vector<Fiber*> turn;
  for (int thread = 0; thread < grid_.threads; ++thread) {
    Fiber& fiber = *fibers_[static_cast<std::size_t>(thread)];
    prepare(fiber);
    turn.push_back(&fiber);
  }
  do {
    std::shuffle(turn.begin(), turn.end(), order_);
    for (Fiber* fiber : turn) {
      if (fiber->state == State::runnable) resume(*fiber);
    }
  } while (open_barriers());
}

void FiberScheduler::prepare(Fiber& fiber) {
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = kStackBytes;
  fiber.context.uc_link = nullptr;
  const auto address = reinterpret_cast<std::uintptr_t>(&fiber);
  makecontext(&fiber.context, reinterpret_cast<void (*)()>(&FiberScheduler::enter), 2,
              static_cast<unsigned>(address >> 32), static_cast<unsigned>(address));
  fiber.state = State::runnable;
}

/// Lets through the warps, or else the block, of which all threads wait; false where all have finished.
bool FiberScheduler::open_barriers() {
  const auto all = [&](int first, int last, State state) {
    return std::all_of(fibers_.begin() + first, fibers_.begin() + last,
                       [&](const auto& fiber) { return fiber->state == state; });
  };
  const auto release = [&](int first, int last) {
    for (int thread = first; thread < last; ++thread)
      fibers_[static_cast<std::size_t>(thread)]->state = State::runnable;
  };
  if (all(0, grid_.threads, State::finished)) return false;
  if (all(0, grid_.threads, State::at_block_barrier)) {
    release(0, grid_.threads);
    return true;
  }
  bool opened = false;
  for (int first = 0; first < grid_.threads; first += kWarp) {
    if (!all(first, first + kWarp, State::at_warp_barrier)) continue;
    release(first, first + kWarp);
    opened = true;
  }
  if (!opened) throw InternalError("block " + std::to_string(index_) + ": not all threads reach a barrier");
  return true;
}

void FiberScheduler::resume(Fiber& fiber) {
  switch_stacks(scheduler_->context, fiber.context, fiber.stack.get(), kStackBytes);
  if (fiber.failure) std::rethrow_exception(std::exchange(fiber.failure, nullptr));
}

void FiberScheduler::wait(int thread, State at) {
  Fiber& fiber = *fibers_[static_cast<std::size_t>(thread)];
  fiber.state = at;
  switch_stacks(fiber.context, scheduler_->context, scheduler_->stack, scheduler_->stack_bytes);
}

void FiberScheduler::enter(unsigned high, unsigned low) {
  Fiber& fiber = *reinterpret_cast<Fiber*>((static_cast<std::uintptr_t>(high) << 32) | low);
  FiberScheduler& scheduler = fiber.scheduler;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler.scheduler_->stack, &scheduler.scheduler_->stack_bytes);
#endif
  try {
    FiberBlock block(scheduler, fiber.thread);
    (*scheduler.body_)(block);
  } catch (...) {
    fiber.failure = std::current_exception();
  }
  fiber.state = State::finished;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(nullptr, scheduler.scheduler_->stack, scheduler.scheduler_->stack_bytes);
#endif
  setcontext(&scheduler.scheduler_->context);
}

}  // namespace annulus::testing
