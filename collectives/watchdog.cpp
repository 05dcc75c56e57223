#include "collectives/watchdog.h"

#include <fmt/format.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "collectives/clock.h"
#include "collectives/rank_state.h"
#include "collectives/watchdog_role.h"

namespace annulus {
namespace {

/// Threads started while this lives leave signals to the others.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

std::unique_ptr<WatchdogRole> connect_role(int rank, int size, const AddressExchange& exchange,
                                           const WatchdogOptions& options) {
  Address address;
  FileDescriptor listener;
  if (rank == 0) listener = listen_anywhere(address);
  const std::string text = exchange(rank == 0 ? address.text() : "");
  if (rank == 0) return make_overseer(size, std::move(listener), address, options);
  return make_member(rank, Address::of(text), options);
}

}  // namespace

class Watchdog::Thread {
 public:
  Thread(const Now& watched, std::unique_ptr<WatchdogRole> role, OnFailure on_failure,
         std::function<void()> last_resort, const WatchdogOptions& options)
      : watched_(watched),
        role_(std::move(role)),
        on_failure_(std::move(on_failure)),
        last_resort_(std::move(last_resort)),
        options_(options),
        wake_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    const SignalsBlocked blocked;
    thread_ = std::thread([this] { run(); });
  }
  Thread(const Thread&) = delete;
  Thread& operator=(const Thread&) = delete;

  enum class Leave : std::uint8_t { no, with_goodbye, silently };

  void wait_until_connected() {
    std::unique_lock lock(mutex_);
    const auto limit = std::chrono::duration<double>(options_.connect_seconds);
    if (changed_.wait_for(lock, limit, [this] { return connected_; })) return;
    lock.unlock();
    leave(Leave::silently);
    throw CollectiveError(
        fmt::format("not all ranks have connected to the watchdog of rank 0 within {} s; allow TCP connections between "
                    "the hosts of a job",
                    options_.connect_seconds));
  }

  void leave(Leave how) {
    {
      const std::lock_guard lock(mutex_);
      leave_ = how;
    }
    changed_.notify_all();
    wake();
    thread_.join();
  }

  void watch(std::function<Sample()> sample) {
    const std::lock_guard lock(sample_mutex_);
    sample_ = std::move(sample);
  }

  void report(const std::string& why) {
    std::unique_lock lock(mutex_);
    report_ = why;
    wake();
    changed_.wait(lock, [this] { return ended_; });
  }

 private:
  void wake() const {
    const std::uint64_t one = 1;
    (void)!write(wake_.number(), &one, sizeof one);
  }

  void run() {
    double last = steady_seconds();
    bool said_goodbye = false;
    while (true) {
      sleep();
      const double now = steady_seconds();
      if (now - last > options_.silence_seconds / 3) role_->forgive(now - last);
      last = now;
      const auto [leave, report] = orders();
      if (leave == Leave::silently) break;
      if (!report.empty()) {
        role_->report(report);
        break;
      }
      if (leave == Leave::with_goodbye && !std::exchange(said_goodbye, true)) role_->say_goodbye(now);
      if (const std::optional<std::string> failure = role_->step(now, sample(now))) {
        fail(*failure);
        break;
      }
      if (said_goodbye && role_->finished(now)) break;
      note(connected_, role_->connected());
    }
    note(ended_, true);
  }

  /// Whoever fails may wait for the main thread; who waits in vain is ended.
  void fail(const std::string& failure) {
    note(ended_, true);  // nobody is told anything any more
    std::thread failing([&] { on_failure_(failure); });
    {
      std::unique_lock lock(mutex_);
      const auto limit = std::chrono::duration<double>(options_.last_seconds);
      const bool left = changed_.wait_for(lock, limit, [this] { return leave_ != Leave::no; });
      if (!left && last_resort_) last_resort_();
    }
    failing.join();
  }

  /// Until something arrives, or a tenth of a second: the resolution of what heartbeats say about durations.
  void sleep() const {
    std::vector<pollfd> sockets = role_->sockets();
    sockets.push_back({wake_.number(), POLLIN, 0});
    poll(sockets.data(), sockets.size(), static_cast<int>(std::min(0.1, options_.heartbeat_seconds / 4) * 1000));
    std::uint64_t count = 0;
    (void)!read(wake_.number(), &count, sizeof count);
  }

  std::pair<Leave, std::string> orders() {
    const std::lock_guard lock(mutex_);
    return {leave_, report_};
  }

  void note(bool& flag, bool value) {
    const std::lock_guard lock(mutex_);
    if (flag == value) return;
    flag = value;
    changed_.notify_all();
  }

  /// What this rank is at. An operation's time begins when this thread first sees it: `begin` need not read a clock.
  RankState sample(double now) {
    RankState state = untimed();
    state.deadline_seconds = std::max(state.deadline_seconds, options_.least_deadline_seconds);
    const std::uint64_t current = 2 * state.sequence + (state.busy ? 1 : 0);
    if (current != seen_ || seen_at_ == 0) {
      seen_ = current;
      seen_at_ = now;
    }
    state.seconds = now - seen_at_;
    return state;
  }

  RankState untimed() {
    RankState state;
    const std::lock_guard lock(sample_mutex_);
    if (sample_) {
      Sample told = sample_();
      state.sequence = told.sequence;
      state.busy = told.busy;
      state.deadline_seconds = told.deadline_seconds;
      state.what = std::move(told.what);
      state.lane = told.lane;
      state.begun = std::move(told.begun);
      return state;
    }
    const std::uint64_t current = watched_.sequence_and_busy.load(std::memory_order_acquire);
    state.sequence = current / 2;
    state.busy = current % 2 == 1;
    state.deadline_seconds = watched_.deadline_seconds.load(std::memory_order_relaxed);
    state.what = watched_.what.load(std::memory_order_relaxed);
    return state;
  }

  const Now& watched_;
  const std::unique_ptr<WatchdogRole> role_;
  const OnFailure on_failure_;
  const std::function<void()> last_resort_;
  const WatchdogOptions options_;
  const FileDescriptor wake_;
  std::uint64_t seen_ = 0;
  double seen_at_ = 0;
  std::mutex sample_mutex_;
  std::function<Sample()> sample_;

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  Leave leave_ = Leave::no;
  std::string report_;
  bool connected_ = false;
  bool ended_ = false;

  std::thread thread_;
};

AddressExchange exchange_over(Communicator& world) {
  return [&world](const std::string& own) {
    auto bytes = static_cast<std::int32_t>(own.size());
    wait(world.broadcast(&bytes, 1, DType::i32, 0));
    std::vector<std::int32_t> words(static_cast<std::size_t>(bytes + 3) / 4);
    if (world.rank() == 0) std::memcpy(words.data(), own.data(), own.size());
    wait(world.broadcast(words.data(), static_cast<std::int64_t>(words.size()), DType::i32, 0));
    return std::string(reinterpret_cast<const char*>(words.data()), static_cast<std::size_t>(bytes));
  };
}

Watchdog::Watchdog(int rank, int size, const AddressExchange& exchange, OnFailure on_failure,
                   const WatchdogOptions& options, std::function<void()> last_resort)
    : exceptions_(std::uncaught_exceptions()),
      thread_(std::make_unique<Thread>(now_, connect_role(rank, size, exchange, options), std::move(on_failure),
                                       std::move(last_resort), options)) {
  thread_->wait_until_connected();
}

Watchdog::~Watchdog() {
  const bool unwinding = std::uncaught_exceptions() > exceptions_;
  thread_->leave(unwinding ? Thread::Leave::silently : Thread::Leave::with_goodbye);
}

void Watchdog::watch(std::function<Sample()> sample) { thread_->watch(std::move(sample)); }

void Watchdog::report(const std::string& why) { thread_->report(why); }

}  // namespace annulus
