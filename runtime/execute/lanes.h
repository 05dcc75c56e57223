#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "runtime/core/communicator.h"

namespace annulus {

/// Seconds of this host's steady clock.
double now_seconds();

/// One collective on its way through a lane. Times are of `now_seconds`.
struct Ticket {
  std::function<Communicator::Pending()> start;
  double handed_over = 0;  ///< by the compute lane: the rank's arrival
  double begun = 0, ended = 0;
  Transport transport = Transport::direct;  ///< how it travelled, once complete
  double not_before = 0;                    ///< a test delays it until then
  std::atomic<int> complete{0};             ///< an int, so that a wait is the kernel's own
};

/// How communication moves on while this rank computes.
enum class Progress : std::uint8_t {
  thread,  ///< a thread of its own tests the transfers
  poll,    ///< the computing thread tests them between ops
};

/// The communication lanes of a rank: each carries out one ticket after another, in the order in which they were handed
/// over; lanes move side by side. What a transfer throws is thrown from `wait` or `poll`.
class Lanes {
 public:
  Lanes(int lane_count, Progress progress);
  ~Lanes();
  Lanes(const Lanes&) = delete;
  Lanes& operator=(const Lanes&) = delete;

  /// The ticket must live until it is complete.
  void hand_over(int lane, Ticket& ticket);
  void wait(Ticket& ticket);
  /// Moves transfers on where no thread does.
  void poll();

 private:
  struct Lane {
    std::deque<Ticket*> queue;
    Ticket* active = nullptr;
    Communicator::Pending transfer;
  };
  struct Arrival {
    int lane = 0;
    Ticket* ticket = nullptr;
  };

  /// Takes over what has been handed over. Holds the lock for no longer: the computing thread must never wait for a
  /// test.
  void take_arrivals();
  /// Tests or begins what each lane has in front; false where nothing is under way.
  bool advance();
  void run();
  void fail();
  void rethrow();

  std::vector<Lane> lanes_;  // of the thread that moves transfers on
  Progress progress_;
  std::mutex mutex_;  // of arrivals_ and failure_
  std::condition_variable work_;
  std::vector<Arrival> arrivals_;
  std::atomic<bool> arrived_{false};
  std::atomic<bool> stop_{false};
  std::atomic<bool> failed_{false};
  std::exception_ptr failure_;
  std::thread thread_;
};

}  // namespace annulus
