#include "collectives/thread_communicator.h"

#include <fmt/format.h>

#include <atomic>
#include <exception>
#include <map>
#include <mutex>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "collectives/direct.h"
#include "collectives/request.h"

namespace annulus {

namespace {

/// Why every transfer of a world fails, once one of its ranks has.
struct Failure {
  std::atomic<bool> failed{false};
  std::mutex mutex;
  std::string why;  // guarded by mutex
};

/// Another rank's fault; `run_ranks` prefers to report the rank that was the cause.
class PeerError : public CollectiveError {
 public:
  using CollectiveError::CollectiveError;
};

/// Where the calls of one collective (an entry for each rank), or of one message (sender, receiver), meet.
struct Meeting {
  Meeting(int size, int work) : requests(size), present(size, 0), units(work) {}

  std::vector<Request> requests;
  std::vector<char> present;  // guarded by the group's mutex, as is `fault`
  std::string fault;
  const int units;  // of work; any rank that tests may take the next one, so that none depends on who tests what first
  std::atomic<int> posted{0};
  std::atomic<int> claimed{0};
  std::atomic<int> done{0};
  std::atomic<int> active{0};  // ranks that may be touching buffers
  std::atomic<bool> broken{false};

  bool finished() const { return done.load(std::memory_order_acquire) == units; }
};

using MeetingKey = std::tuple<int, int, std::uint64_t>;  // sender and receiver, or -1 and -1; number in this sequence

struct Group {
  Group(std::shared_ptr<Failure> of_world, int ranks) : failure(std::move(of_world)), size(ranks), has_left(ranks, 0) {}

  const std::shared_ptr<Failure> failure;
  const int size;
  std::mutex mutex;
  std::map<MeetingKey, std::shared_ptr<Meeting>> meetings;
  std::map<std::pair<std::uint64_t, int>, std::pair<std::shared_ptr<Group>, int>> splits;  // and who has yet to ask
  std::vector<char> has_left;
};

class ThreadTransfer final : public Transfer {
 public:
  ThreadTransfer(std::shared_ptr<Group> group, std::shared_ptr<Meeting> meeting, std::string name)
      : group_(std::move(group)), meeting_(std::move(meeting)), name_(std::move(name)) {}
  ThreadTransfer(const ThreadTransfer&) = delete;
  ThreadTransfer& operator=(const ThreadTransfer&) = delete;

  /// An exception unwinds past an unfinished transfer: its buffers are about to go, so nobody may touch them any more.
  ~ThreadTransfer() override {
    if (meeting_->finished()) return;
    {
      const std::lock_guard lock(group_->mutex);
      if (meeting_->fault.empty()) meeting_->fault = name_ + " was given up by that rank";
    }
    meeting_->broken = true;
    while (meeting_->active.load() > 0) std::this_thread::yield();
  }

  Transport transport() const override { return Transport::direct; }
  bool test() override {
    if (meeting_->finished()) return true;
    check();
    if (meeting_->posted.load(std::memory_order_acquire) < static_cast<int>(meeting_->requests.size())) return false;
    work();
    return meeting_->finished();
  }

 private:
  void work() {
    ++meeting_->active;  // before `broken` is read: see the destructor
    while (!meeting_->broken && meeting_->claimed < meeting_->units) {
      const int unit = meeting_->claimed++;
      if (unit >= meeting_->units) break;
      const auto& requests = meeting_->requests;
      perform(requests, unit, 0, part_elements(requests.front(), static_cast<int>(requests.size()), unit));
      meeting_->done.fetch_add(1, std::memory_order_acq_rel);
    }
    --meeting_->active;
  }

  void check() {
    if (meeting_->broken) {
      const std::lock_guard lock(group_->mutex);
      throw PeerError(fmt::format("{}: {}", name_, meeting_->fault));
    }
    if (group_->failure->failed) {
      const std::lock_guard lock(group_->failure->mutex);
      throw PeerError(fmt::format("{}: {}", name_, group_->failure->why));
    }
  }

  const std::shared_ptr<Group> group_;
  const std::shared_ptr<Meeting> meeting_;
  const std::string name_;
};

class ThreadCommunicator final : public RequestCommunicator {
 public:
  ThreadCommunicator(std::shared_ptr<Group> group, int rank) : group_(std::move(group)), rank_(rank) {}
  ThreadCommunicator(const ThreadCommunicator&) = delete;
  ThreadCommunicator& operator=(const ThreadCommunicator&) = delete;

  ~ThreadCommunicator() override {
    const std::lock_guard lock(group_->mutex);
    group_->has_left[rank_] = 1;
    for (auto& [key, meeting] : group_->meetings) fault_if_awaited(key, *meeting, rank_);
  }

  int size() const override { return group_->size; }
  int rank() const override { return rank_; }

  std::unique_ptr<Communicator> split(int color, int key) override {
    const std::vector<int> members = group_of(exchange_colors(color, key), rank_);
    std::shared_ptr<Group> group;
    {
      const std::lock_guard lock(group_->mutex);
      const auto where = std::pair(splits_++, color);
      auto& [shared, awaited] = group_->splits[where];
      if (!shared) {
        shared = std::make_shared<Group>(group_->failure, static_cast<int>(members.size()));
        awaited = shared->size;
      }
      group = shared;
      if (--awaited == 0) group_->splits.erase(where);
    }
    int rank = 0;
    while (members[rank] != rank_) ++rank;
    return std::make_unique<ThreadCommunicator>(std::move(group), rank);
  }

 protected:
  Pending start(const Request& request) override {
    const std::string name = fmt::format("{} on rank {} of {}", describe(request), rank_, size());
    const MeetingKey key = key_of(request);
    const bool message = is_message(request.kind);
    const int place = !message ? rank_ : request.kind == CollectiveKind::send ? 0 : 1;

    const std::lock_guard lock(group_->mutex);
    std::shared_ptr<Meeting>& found = group_->meetings[key];
    if (!found) found = std::make_shared<Meeting>(message ? 2 : size(), message ? 1 : size());
    const std::shared_ptr<Meeting> meeting = found;
    for (int other = 0; other < static_cast<int>(meeting->requests.size()); ++other) {
      if (!meeting->present[other] || agrees(meeting->requests[other], request)) continue;
      meeting->fault = fmt::format(
          "call number {}: rank {} called {}, rank {} called {}; ranks must call alike and in the same order",
          std::get<2>(key), rank_, describe(request), message ? request.peer : other,
          describe(meeting->requests[other]));
      meeting->broken = true;
      throw CollectiveError(fmt::format("{}: {}", name, meeting->fault));
    }
    meeting->requests[place] = request;
    meeting->present[place] = 1;
    for (int other = 0; other < size(); ++other) {
      if (group_->has_left[other]) fault_if_awaited(key, *meeting, other);
    }
    if (++meeting->posted == static_cast<int>(meeting->requests.size())) group_->meetings.erase(key);
    return std::make_unique<ThreadTransfer>(group_, meeting, name);
  }

 private:
  MeetingKey key_of(const Request& request) {
    if (!is_message(request.kind)) return {-1, -1, collectives_++};
    const bool sends = request.kind == CollectiveKind::send;
    const std::pair<int, int> ends = sends ? std::pair(rank_, request.peer) : std::pair(request.peer, rank_);
    return {ends.first, ends.second, sends ? sent_[request.peer]++ : received_[request.peer]++};
  }

  /// Marks a meeting that `leaver`, who has left the group, will never come to. The group's mutex is held.
  void fault_if_awaited(const MeetingKey& key, Meeting& meeting, int leaver) const {
    const auto [sender, receiver, number] = key;
    const auto missing = [&](int place, int rank) { return rank == leaver && !meeting.present[place]; };
    const bool awaited = sender < 0 ? missing(leaver, leaver) : missing(0, sender) || missing(1, receiver);
    if (!awaited || !meeting.fault.empty()) return;
    meeting.fault = fmt::format("rank {} has left the group without call number {}", leaver, number);
    meeting.broken = true;
  }

  const std::shared_ptr<Group> group_;
  const int rank_;
  std::uint64_t collectives_ = 0;
  std::uint64_t splits_ = 0;
  std::map<int, std::uint64_t> sent_;
  std::map<int, std::uint64_t> received_;
};

}  // namespace

struct ThreadWorld::State {
  std::shared_ptr<Group> group;
};

ThreadWorld::ThreadWorld(int size) : state_(std::make_shared<State>()) {
  if (size < 1) throw InternalError(fmt::format("a world of {} ranks", size));
  state_->group = std::make_shared<Group>(std::make_shared<Failure>(), size);
}

std::unique_ptr<Communicator> ThreadWorld::communicator(int rank) const {
  return std::make_unique<ThreadCommunicator>(state_->group, rank);
}

void ThreadWorld::fail(const std::string& why) const {
  Failure& failure = *state_->group->failure;
  const std::lock_guard lock(failure.mutex);
  if (!failure.failed) failure.why = why;
  failure.failed = true;
}

void run_ranks(int size, const std::function<void(Communicator& world)>& body) {
  const ThreadWorld world(size);
  std::mutex mutex;
  std::exception_ptr cause;
  std::exception_ptr consequence;  // a rank that failed because another did; kept for when no cause is known
  const auto record = [&](std::exception_ptr& first, const std::string& why) {
    world.fail(why);
    const std::lock_guard lock(mutex);
    if (!first) first = std::current_exception();
  };
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        const std::unique_ptr<Communicator> communicator = world.communicator(rank);
        body(*communicator);
      } catch (const PeerError& error) {
        record(consequence, fmt::format("rank {} failed: {}", rank, error.what()));
      } catch (const std::exception& error) {
        record(cause, fmt::format("rank {} failed: {}", rank, error.what()));
      } catch (...) {
        record(cause, fmt::format("rank {} failed", rank));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (cause) std::rethrow_exception(cause);
  if (consequence) std::rethrow_exception(consequence);
}

}  // namespace annulus
