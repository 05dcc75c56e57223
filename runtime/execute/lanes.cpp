#include "runtime/execute/lanes.h"

#include <chrono>

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
  ticket.complete.store(false, std::memory_order_relaxed);
  ticket.handed_over = now_seconds();
  {
    const std::lock_guard lock(mutex_);
    lanes_[static_cast<std::size_t>(lane)].queue.push_back(&ticket);
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
  int tries = 0;
  while (!ticket.complete.load(std::memory_order_acquire)) {
    if (failed_.load(std::memory_order_acquire)) rethrow();
    if (progress_ == Progress::poll) {
      poll();
      if (++tries > 100) std::this_thread::yield();
    } else if (++tries > 100) {
      std::this_thread::yield();
    }
  }
}

void Lanes::poll() {
  if (progress_ != Progress::poll) return;
  const std::lock_guard lock(mutex_);
  advance();
}

bool Lanes::advance() {
  bool busy = false;
  for (Lane& lane : lanes_) {
    if (lane.active == nullptr && !lane.queue.empty() && now_seconds() >= lane.queue.front()->not_before) {
      lane.active = lane.queue.front();
      lane.queue.pop_front();
      lane.active->begun = now_seconds();
      lane.transfer = lane.active->start();
    }
    if (lane.active != nullptr && lane.transfer->test()) {
      lane.transfer.reset();
      lane.active->ended = now_seconds();
      lane.active->complete.store(true, std::memory_order_release);
      lane.active = nullptr;
    }
    busy = busy || lane.active != nullptr || !lane.queue.empty();
  }
  return busy;
}

void Lanes::run() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    bool busy = false;
    try {
      busy = advance();
    } catch (...) {
      failure_ = std::current_exception();
      failed_.store(true, std::memory_order_release);
      return;
    }
    if (busy) {
      lock.unlock();
      std::this_thread::yield();
      lock.lock();
    } else {
      work_.wait(lock);
    }
  }
}

}  // namespace annulus
