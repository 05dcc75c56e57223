#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/core/communicator.h"

namespace annulus {

struct WatchdogOptions {
  double heartbeat_seconds = 1;        ///< between two heartbeats of a rank
  double silence_seconds = 10;         ///< without a heartbeat, after which a rank is given up
  double least_deadline_seconds = 60;  ///< shorter deadlines of operations are raised to this
  double connect_seconds = 60;         ///< for all ranks to connect at the start
  double last_seconds = 20;            ///< from `on_failure` to `last_resort`
};

/// Gives every rank the text of rank 0; what the others hand in is ignored. Collective.
using AddressExchange = std::function<std::string(const std::string& own)>;
AddressExchange exchange_over(Communicator& world);

/// Notices ranks that died, hosts that are out of reach and operations that hang, over TCP connections and a thread of
/// its own, so that it works while a rank computes or is stuck in MPI. Every rank tells rank 0 each second what it is
/// at.
///
/// - a connection that closes without a goodbye: that rank died (it threw, exited, was killed);
/// - no heartbeat for `silence_seconds`: that rank's host is out of reach, or the process is stopped;
/// - an operation past its deadline: a hang; the ranks that have not come as far as others are named.
///
/// Whatever happened is told to all ranks, and each calls `on_failure` once, from a thread of its own, in which it may
/// wait: for communicators to be aborted, say, while the main thread unwinds. If the watchdog still lives after
/// `last_seconds`, it calls `last_resort`, which should end the process. The destructor says goodbye; that of rank 0
/// waits for everybody's. Where an exception unwinds past it, it leaves without a goodbye.
class Watchdog {
 public:
  using OnFailure = std::function<void(const std::string& message)>;

  /// Collective: connects all ranks. Throws CollectiveError where a rank cannot be reached in time.
  Watchdog(int rank, int size, const AddressExchange& exchange, OnFailure on_failure,
           const WatchdogOptions& options = {}, std::function<void()> last_resort = {});
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;
  ~Watchdog();

  /// An operation begins: its number in the order that all ranks share (from 1), its name and axes (which must stay
  /// where they are until the next begin), and the seconds after which it counts as hanging. A few nanoseconds; one
  /// thread.
  void begin(std::uint64_t sequence, const char* what, double deadline_seconds) {
    now_.what.store(what, std::memory_order_relaxed);
    now_.deadline_seconds.store(deadline_seconds, std::memory_order_relaxed);
    now_.sequence_and_busy.store(2 * sequence + 1, std::memory_order_release);
  }
  /// The operation has ended.
  void end() {
    now_.sequence_and_busy.store(now_.sequence_and_busy.load(std::memory_order_relaxed) & ~std::uint64_t{1},
                                 std::memory_order_release);
  }

  /// What a rank is at whose device tells it by itself: `sequence` as in `begin`, and by lane of transfers the number
  /// of the newest that has begun. A hang in a lane is explained by that lane alone.
  struct Sample {
    std::uint64_t sequence = 0;
    bool busy = false;
    std::string what;
    double deadline_seconds = 0;
    int lane = 0;  ///< in which it is, from 1; 0 if in none
    std::vector<std::uint64_t> begun;
  };
  /// From now on the watchdog's thread asks `sample` for what this rank is at; null: `begin` and `end` tell again. Does
  /// not return while the former one is being asked.
  void watch(std::function<Sample()> sample);

  /// Tells all other ranks that this one fails, and why, before it ends. Does not call its own `on_failure`.
  void report(const std::string& why);

  struct Now {
    std::atomic<const char*> what{""};
    std::atomic<double> deadline_seconds{0};
    std::atomic<std::uint64_t> sequence_and_busy{0};
  };

 private:
  class Thread;

  Now now_;
  const int exceptions_;  // under way when this was made
  std::unique_ptr<Thread> thread_;
};

}  // namespace annulus
