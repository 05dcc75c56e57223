#include "runtime/execute/lanes.h"

#include <chrono>
#include <utility>

namespace annulus {

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

Lanes::Lanes(int lane_count, Progress progress) : lanes_(static_cast<std::size_t>(lane_count)), progress_(progress) {
  if (progress_ == Progress::thread && lane_count > 0) thread_ = std::thread([this] { run(); });
}

Lanes::~Lanes() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  work_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Lanes::hand_over(int lane, Ticket& ticket) {
  ticket.complete.store(0, std::memory_order_relaxed);
  ticket.handed_over = now_seconds();
  {
    const std::lock_guard lock(mutex_);
    arrivals_.push_back({lane, &ticket});
    arrived_.store(true, std::memory_order_release);
  }
  if (progress_ == Progress::thread)
    work_.notify_one();
  else
    poll();
}

void Lanes::rethrow() {
  const std::lock_guard lock(mutex_);
  std::rethrow_exception(failure_);
}

void Lanes::wait(Ticket& ticket) {
  constexpr int kSpins = 200;  // about the time of a short message; then the core is given away
  for (int spins = 0; ticket.complete.load(std::memory_order_acquire) == 0; ++spins) {
    if (failed_.load(std::memory_order_acquire)) rethrow();
    if (progress_ == Progress::poll) poll();
    if (spins < kSpins) continue;
    if (progress_ == Progress::poll)
      std::this_thread::yield();
    else
      ticket.complete.wait(0, std::memory_order_acquire);
  }
  if (failed_.load(std::memory_order_acquire)) rethrow();
}

void Lanes::poll() {
  if (progress_ == Progress::poll) advance();
}

void Lanes::take_arrivals() {
  if (!arrived_.load(std::memory_order_acquire)) return;
  const std::lock_guard lock(mutex_);
  for (const Arrival& arrival : arrivals_)
    lanes_[static_cast<std::size_t>(arrival.lane)].queue.push_back(arrival.ticket);
  arrivals_.clear();
  arrived_.store(false, std::memory_order_relaxed);
}

bool Lanes::advance() {
  take_arrivals();
  bool busy = false;
  for (Lane& lane : lanes_) {
    if (lane.active == nullptr && !lane.queue.empty() && now_seconds() >= lane.queue.front()->not_before) {
      lane.active = lane.queue.front();
      lane.queue.pop_front();
      lane.active->begun = now_seconds();
      lane.transfer = lane.active->start();
    }
    if (lane.active != nullptr && lane.transfer->test()) {
      Ticket& done = *std::exchange(lane.active, nullptr);
      done.transport = lane.transfer->transport();
      lane.transfer.reset();
      done.ended = now_seconds();
      done.complete.store(1, std::memory_order_release);
      if (progress_ == Progress::thread) done.complete.notify_one();
    }
    busy = busy || lane.active != nullptr || !lane.queue.empty();
  }
  return busy;
}

void Lanes::run() {
  while (!stop_) {  // also with transfers under way: after an exception nobody waits for them
    try {
      if (advance()) {
        std::this_thread::yield();
        continue;
      }
    } catch (...) {
      fail();
      return;
    }
    std::unique_lock lock(mutex_);
    work_.wait(lock, [&] { return stop_ || !arrivals_.empty(); });
  }
}

/// Ends all tickets, so that nobody waits for one that will never be complete.
void Lanes::fail() {
  {
    const std::lock_guard lock(mutex_);
    failure_ = std::current_exception();
    failed_.store(true, std::memory_order_release);
  }
  take_arrivals();
  for (Lane& lane : lanes_) {
    if (lane.active != nullptr) lane.queue.push_front(lane.active);
    for (Ticket* ticket : lane.queue) {
      ticket->complete.store(1, std::memory_order_release);
      ticket->complete.notify_one();
    }
  }
}

}  // namespace annulus
