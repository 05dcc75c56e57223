#include "collectives/nccl_communicator.h"

#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "collectives/progress.h"
#include "collectives/request.h"
#include "runtime/core/error.h"

namespace annulus {

class NcclOperation;

/// What all groups of a rank share: the library, the order of calls, and who is to be aborted.
class NcclSession {
 public:
  NcclSession(std::shared_ptr<NcclLibrary> of, double seconds) : library(std::move(of)), start_seconds(seconds) {}

  void add(NcclLibrary::Group& group) {
    const std::lock_guard lock(mutex_);
    groups_.push_back(&group);
  }
  void remove(NcclLibrary::Group& group) {
    const std::lock_guard lock(mutex_);
    std::erase(groups_, &group);
  }
  bool aborted() const { return aborted_.load(); }
  /// Calls the library, unless groups are being ended, which leaves nothing to be asked. Throws CollectiveError.
  template <class Question>
  auto ask(Question question) {
    const std::lock_guard lock(asking_);
    if (aborted()) throw CollectiveError("NCCL was aborted");
    return question();
  }
  void abort() {
    const std::lock_guard lock(mutex_);  // whoever comes second waits: then all groups are ended
    if (aborted_.exchange(true)) return;
    { const std::lock_guard asked(asking_); }  // what is being asked comes first
    std::vector<std::thread> threads;          // one group's abort may wait for another's
    for (NcclLibrary::Group* group : groups_) threads.emplace_back([this, group] { library->abort(*group); });
    for (std::thread& thread : threads) thread.join();
  }

  const std::shared_ptr<NcclLibrary> library;
  const double start_seconds;  ///< of a group at most
  const std::shared_ptr<ProgressEngine> progress = std::make_shared<ProgressEngine>();
  std::deque<NcclOperation*> unissued;  ///< in the order in which they were started; the first may be in progress
  const int exceptions = std::uncaught_exceptions();

 private:
  std::mutex asking_;
  std::mutex mutex_;  // of groups_
  std::vector<NcclLibrary::Group*> groups_;
  std::atomic<bool> aborted_{false};
};

/// One group as this rank knows it.
struct NcclMembership {
  std::shared_ptr<NcclSession> session;
  NcclLibrary::Group* group = nullptr;
  int rank = 0;
  int size = 0;
};

std::string describe_at(const NcclMembership& membership, const Request& request) {
  return fmt::format("{} on rank {} of {}", describe(request), membership.rank, membership.size);
}

/// What a request asks of NCCL, between begin_calls and end_calls.
class NcclCalls {
 public:
  NcclCalls(const NcclMembership& membership, const Request& request) : membership_(membership), request_(request) {}

  void make() const {
    const Request& r = request_;
    NcclLibrary::Group& group = *membership_.group;
    const NcclLibrary::Call whole{r.send, r.receive, r.count, r.dtype, r.reduction, r.peer};
    switch (r.kind) {
      case CollectiveKind::all_reduce:
        return library().all_reduce(group, whole);
      case CollectiveKind::all_gather:
        return library().all_gather(group, whole);
      case CollectiveKind::reduce_scatter:
        return library().reduce_scatter(group, whole);
      case CollectiveKind::broadcast:
        return library().broadcast(group, {r.receive, r.receive, r.count, r.dtype, r.reduction, r.peer});
      case CollectiveKind::reduce:
        return library().reduce(group, whole);
      case CollectiveKind::send:
        return send(0, r.peer);
      case CollectiveKind::recv:
        return receive(0, r.peer);
      case CollectiveKind::shift:
        return exchange(0, (membership_.rank + r.peer) % membership_.size, 0,
                        (membership_.rank + membership_.size - r.peer) % membership_.size);
      case CollectiveKind::all_to_all:
        for (int peer = 0; peer < membership_.size; ++peer) exchange(peer, peer, peer, peer);
        return;
      case CollectiveKind::gather:
        if (membership_.rank != r.peer) return send(0, r.peer);
        for (int peer = 0; peer < membership_.size; ++peer)
          peer == membership_.rank ? keep(0, peer) : receive(peer, peer);
        return;
      case CollectiveKind::scatter:
        if (membership_.rank != r.peer) return receive(0, r.peer);
        for (int peer = 0; peer < membership_.size; ++peer) peer == membership_.rank ? keep(peer, 0) : send(peer, peer);
        return;
    }
  }

 private:
  NcclLibrary& library() const { return *membership_.session->library; }
  void send(int part, int peer) const {
    library().send(*membership_.group, {request_.send_part(part), nullptr, request_.count, request_.dtype, {}, peer});
  }
  void receive(int part, int peer) const {
    library().receive(*membership_.group,
                      {nullptr, request_.receive_part(part), request_.count, request_.dtype, {}, peer});
  }
  void exchange(int send_part, int to, int receive_part, int from) const {
    if (to == membership_.rank && from == membership_.rank) return keep(send_part, receive_part);
    send(send_part, to);
    receive(receive_part, from);
  }
  /// This rank's own part.
  void keep(int from, int to) const {
    if (request_.send_part(from) == request_.receive_part(to)) return;
    library().copy(*membership_.group, request_.send_part(from), request_.receive_part(to), request_.bytes());
  }

  const NcclMembership& membership_;
  const Request& request_;
};

/// A request: it waits for its turn, is issued, accepted, and then under way on the group's stream.
class NcclOperation final : public Operation {
 public:
  NcclOperation(const NcclMembership& membership, const Request& request) : membership_(membership), request_(request) {
    membership_.session->unissued.push_back(this);
  }
  NcclOperation(const NcclOperation&) = delete;
  NcclOperation& operator=(const NcclOperation&) = delete;
  ~NcclOperation() override {
    std::erase(membership_.session->unissued, this);
    if (mark_ != nullptr) library().release(*mark_);
  }

  Transport transport() const override { return Transport::nccl; }
  bool advance() override {
    NcclSession& session = *membership_.session;
    try {
      return session.ask([&] { return (mark_ != nullptr || move_to_stream(session)) && library().passed(*mark_); });
    } catch (const CollectiveError& error) {
      throw CollectiveError(fmt::format("{}: {}", describe_here(), error.what()));
    }
  }

 private:
  NcclLibrary& library() const { return *membership_.session->library; }
  std::string describe_here() const { return describe_at(membership_, request_); }

  /// True once NCCL has accepted the request.
  bool move_to_stream(NcclSession& session) {
    if (session.unissued.front() != this) return false;  // whoever is will be advanced, too
    if (issued_ == 0) issue(session);
    if (!library().accepted(*membership_.group)) return false;
    for (std::size_t i = issued_; i > 0; --i) {
      session.unissued.front()->mark_ = library().mark(*membership_.group);
      session.unissued.pop_front();
    }
    return true;
  }

  /// Issues this request, and with a message those messages of the group that follow it: two ranks that first send to
  /// each other would otherwise wait for each other's receive for ever.
  void issue(NcclSession& session) {
    library().begin_calls();
    for (NcclOperation* operation : session.unissued) {
      const bool joins = operation == this || (is_message(request_.kind) && is_message(operation->request_.kind) &&
                                               operation->membership_.group == membership_.group);
      if (!joins) break;
      NcclCalls(operation->membership_, operation->request_).make();
      ++issued_;
    }
    library().end_calls();
  }

  const NcclMembership& membership_;
  const Request request_;
  std::size_t issued_ = 0;  // requests issued with this one, itself included
  NcclLibrary::Mark* mark_ = nullptr;
};

namespace {

class NcclCommunicator final : public RequestCommunicator {
 public:
  NcclCommunicator(std::shared_ptr<NcclSession> session, std::unique_ptr<Communicator> bootstrap)
      : bootstrap_(std::move(bootstrap)) {
    membership_ = {std::move(session), nullptr, bootstrap_->rank(), bootstrap_->size()};
    NcclLibrary::Id id{};
    if (rank() == 0) id = library().new_id();
    const auto words = static_cast<std::int64_t>(id.size() / sizeof(std::int32_t));
    wait(bootstrap_->broadcast(id.data(), words, DType::i32, 0));
    membership_.group = library().connect(id, size(), rank());
    membership_.session->add(*membership_.group);
    try {
      find_each_other();
    } catch (const CollectiveError&) {
      membership_.session->abort();
      leave();
      throw;
    }
  }
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;
  ~NcclCommunicator() override {
    NcclSession& session = *membership_.session;
    // While an exception unwinds, the other ranks do not come along.
    if (!session.aborted() && std::uncaught_exceptions() > session.exceptions) session.abort();
    try {
      settle();  // throws for a group that has failed
      session.ask([&] { library().finalize(*membership_.group); });
      settle();
    } catch (const CollectiveError&) {
      session.abort();  // if it has not been
    }
    leave();
  }

  int size() const override { return membership_.size; }
  int rank() const override { return membership_.rank; }
  void use_stream(Stream* stream) override {
    on_stream_ = stream != nullptr;
    library().use_stream(*membership_.group, stream);
  }
  void check_health() override {
    try {
      accepted();
    } catch (const CollectiveError& error) {
      throw CollectiveError(fmt::format("rank {} of {}: {}", rank(), size(), error.what()));
    }
  }
  std::unique_ptr<Communicator> split(int color, int key) override {
    return std::make_unique<NcclCommunicator>(membership_.session, bootstrap_->split(color, key));
  }

 protected:
  Pending start(const Request& request) override {
    if (on_stream_) return put_on_stream(request);
    return ProgressEngine::start(membership_.session->progress, std::make_unique<NcclOperation>(membership_, request));
  }

 private:
  NcclLibrary& library() const { return *membership_.session->library; }
  bool accepted() {
    return membership_.session->ask([&] { return library().accepted(*membership_.group); });
  }
  void settle() {
    while (!accepted()) std::this_thread::yield();
  }
  void find_each_other() {
    using Clock = std::chrono::steady_clock;
    const double most = membership_.session->start_seconds;
    const auto begin = Clock::now();
    while (!accepted()) {
      if (std::chrono::duration<double>(Clock::now() - begin).count() > most)
        throw CollectiveError(fmt::format(
            "rank {} of {}: the ranks of a group have not found each other in {} s; NCCL_DEBUG=INFO tells more", rank(),
            size(), most));
      std::this_thread::yield();
    }
  }
  void leave() {
    membership_.session->remove(*membership_.group);
    library().destroy(*membership_.group);
  }

  /// Nothing may be asked of the stream before NCCL has accepted the call: it may not have reached the stream yet.
  Pending put_on_stream(const Request& request) {
    if (!membership_.session->unissued.empty())
      throw InternalError(describe_at(membership_, request) + ": earlier transfers have not been waited for");
    try {
      membership_.session->ask([&] {
        library().begin_calls();
        NcclCalls(membership_, request).make();
        library().end_calls();
      });
      settle();
    } catch (const CollectiveError& error) {
      throw CollectiveError(fmt::format("{}: {}", describe_at(membership_, request), error.what()));
    }
    return completed_transfer(Transport::nccl);
  }

  std::unique_ptr<Communicator> bootstrap_;
  NcclMembership membership_;
  bool on_stream_ = false;
};

}  // namespace

void NcclWorld::abort() const { session->abort(); }

NcclWorld nccl_world(std::unique_ptr<Communicator> bootstrap, std::shared_ptr<NcclLibrary> library,
                     double start_seconds) {
  auto session = std::make_shared<NcclSession>(std::move(library), start_seconds);
  auto communicator = std::make_unique<NcclCommunicator>(session, std::move(bootstrap));
  return {session, std::move(communicator)};
}

}  // namespace annulus
