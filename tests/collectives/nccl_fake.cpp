#include "tests/collectives/nccl_fake.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "runtime/core/error.h"
#include "tests/streams/fake_streams.h"

namespace annulus {

namespace {

/// A part of a call, as one rank gives it; several ranks' parts make it happen.
struct Part {
  std::string name;
  NcclLibrary::Call call;
  std::shared_ptr<bool> left = {};  // whether its rank has, whose memory may be gone
  bool done = false;
};

}  // namespace

/// What all ranks of a group share.
struct SharedGroup {
  int size = 0;
  std::vector<std::vector<std::shared_ptr<Part>>> collectives;  // by number of the call, then by rank
  std::map<std::pair<int, int>, std::deque<std::shared_ptr<Part>>> sends, receives;
};

/// What a rank's calls that are under way hold on to.
struct Membership : testing::Resource {
  std::shared_ptr<SharedGroup> shared;
  int rank = 0;
  std::size_t collectives = 0;
  std::shared_ptr<bool> ended = std::make_shared<bool>(false);
};

struct NcclLibrary::Group {
  std::shared_ptr<Membership> member;
  Stream* stream = nullptr;
  int questions = 0;  // to be asked before it is accepted
  bool in_progress = false, finalized = false;
  std::vector<std::shared_ptr<Part>> called;  // between begin_calls and end_calls, or not accepted yet
  std::vector<std::shared_ptr<Part>> asked;
};

struct NcclLibrary::Mark {
  std::vector<std::shared_ptr<Part>> behind;
};

namespace testing {

struct NcclFabric::State {
  std::mutex mutex;
  std::mt19937_64 engine;
  std::map<std::string, std::shared_ptr<SharedGroup>> groups;
  int ids = 0;
  bool frozen = false, failed = false;
};

namespace {

template <class T>
void reduce_into(const std::vector<std::shared_ptr<Part>>& parts, std::int64_t first, std::int64_t count, T* to) {
  std::vector<Wide<T>> result(static_cast<std::size_t>(count));
  for (std::size_t rank = 0; rank < parts.size(); ++rank) {
    const T* from = static_cast<const T*>(parts[rank]->call.send) + first;
    for (std::size_t i = 0; i < result.size(); ++i) {
      const Wide<T> x = from[i];
      result[i] = rank == 0 ? x : parts[0]->call.reduction == Reduction::sum ? result[i] + x : std::max(result[i], x);
    }
  }
  std::transform(result.begin(), result.end(), to, [](Wide<T> x) { return T(x); });
}

void reduce_part(const std::vector<std::shared_ptr<Part>>& parts, std::int64_t first, std::int64_t count, void* to) {
  const DType dtype = parts[0]->call.dtype;
  if (dtype == DType::i32) return reduce_into(parts, first, count, static_cast<std::int32_t*>(to));
  dispatch_stored(dtype, [&]<class T>(T) { reduce_into(parts, first, count, static_cast<T*>(to)); });
}

/// All ranks have come: what NCCL would do.
void perform(const std::vector<std::shared_ptr<Part>>& parts) {
  const NcclLibrary::Call& first = parts[0]->call;
  const std::int64_t bytes = first.count * size_of(first.dtype);
  const auto size = static_cast<std::int64_t>(parts.size());
  for (const auto& part : parts) {
    if (part->name != parts[0]->name || part->call.count != first.count || part->call.dtype != first.dtype ||
        part->call.reduction != first.reduction || part->call.root != first.root)
      throw CollectiveError("ranks call " + part->name + " and " + parts[0]->name + " at one place");
  }
  const auto give = [&](const void* from, void* to, std::int64_t n) {
    if (n > 0 && from != to) std::memmove(to, from, static_cast<std::size_t>(n));
  };
  std::vector<std::vector<std::byte>> results;  // made before any is written: some are in place
  for (std::int64_t rank = 0; rank < size; ++rank) {
    const bool gathers = parts[0]->name == "all_gather";
    std::vector<std::byte> result(static_cast<std::size_t>(gathers ? size * bytes : bytes));
    if (gathers) {
      for (std::int64_t peer = 0; peer < size; ++peer)
        give(parts[static_cast<std::size_t>(peer)]->call.send, result.data() + peer * bytes, bytes);
    } else if (parts[0]->name == "broadcast") {
      give(parts[static_cast<std::size_t>(first.root)]->call.send, result.data(), bytes);
    } else {
      reduce_part(parts, parts[0]->name == "reduce_scatter" ? rank * first.count : 0, first.count, result.data());
    }
    results.push_back(std::move(result));
  }
  for (std::int64_t rank = 0; rank < size; ++rank) {
    if (parts[0]->name == "reduce" && rank != first.root) continue;
    const auto& result = results[static_cast<std::size_t>(rank)];
    give(result.data(), parts[static_cast<std::size_t>(rank)]->call.receive, static_cast<std::int64_t>(result.size()));
  }
  for (const auto& part : parts) part->done = true;
}

/// One rank comes to a call: what can happen, does.
void arrive(Membership& member, const std::shared_ptr<Part>& part) {
  SharedGroup& shared = *member.shared;
  part->left = member.ended;
  if (part->name == "copy") {
    if (part->call.count > 0)
      std::memmove(part->call.receive, part->call.send, static_cast<std::size_t>(part->call.count));
    part->done = true;
    return;
  }
  if (part->name != "send" && part->name != "recv") {
    auto& all = shared.collectives;
    if (all.size() <= member.collectives) all.resize(member.collectives + 1);
    auto& parts = all[member.collectives++];
    parts.resize(static_cast<std::size_t>(shared.size));
    parts[static_cast<std::size_t>(member.rank)] = part;
    if (std::all_of(parts.begin(), parts.end(), [](const auto& p) { return p != nullptr && !*p->left; }))
      perform(parts);
    return;
  }
  const bool sends = part->name == "send";
  const int peer = part->call.root;
  const std::pair ends = sends ? std::pair(member.rank, peer) : std::pair(peer, member.rank);
  auto &sent = shared.sends[ends], &received = shared.receives[ends];
  (sends ? sent : received).push_back(part);
  while (!sent.empty() && !received.empty() && !*sent.front()->left && !*received.front()->left) {
    const NcclLibrary::Call &from = sent.front()->call, &to = received.front()->call;
    if (from.count != to.count || from.dtype != to.dtype) throw CollectiveError("the ends of a message differ");
    if (from.count > 0) std::memmove(to.receive, from.send, static_cast<std::size_t>(from.count * size_of(from.dtype)));
    sent.front()->done = received.front()->done = true;
    sent.pop_front();
    received.pop_front();
  }
}

/// What a call reads and writes on its rank.
void add_accesses(const Part& part, int size, std::vector<Access>& accesses) {
  const std::int64_t bytes = part.name == "copy" ? part.call.count : part.call.count * size_of(part.call.dtype);
  const std::int64_t given = part.name == "reduce_scatter" ? size * bytes : bytes;
  const std::int64_t taken = part.name == "all_gather" ? size * bytes : bytes;
  if (part.call.send != nullptr) accesses.push_back({part.call.send, given, Access::How::reads});
  if (part.call.receive != nullptr) accesses.push_back({part.call.receive, taken, Access::How::writes});
}

class FakeNccl final : public NcclLibrary {
 public:
  FakeNccl(std::shared_ptr<NcclFabric::State> state, std::vector<std::string>* issued, FakeStreams* streams)
      : state_(std::move(state)), issued_(issued), streams_(streams) {}

  Id new_id() override {
    const std::lock_guard lock(state_->mutex);
    Id id{};
    const std::string name = "group " + std::to_string(state_->ids++);
    std::memcpy(id.data(), name.data(), name.size());
    return id;
  }
  Group* connect(const Id& id, int size, int rank) override {
    const std::lock_guard lock(state_->mutex);
    auto& shared = state_->groups[reinterpret_cast<const char*>(id.data())];
    if (!shared) shared = std::make_shared<SharedGroup>();
    if (shared->size != 0 && shared->size != size) throw CollectiveError("ranks do not agree on a group's size");
    shared->size = size;
    auto group = std::make_unique<Group>();
    group->member = std::make_shared<Membership>();
    group->member->shared = shared;
    group->member->rank = rank;
    begin(*group);
    return group.release();
  }
  void use_stream(Group& group, Stream* stream) override { group.stream = stream; }
  bool accepted(Group& group) override {
    {
      const std::lock_guard lock(state_->mutex);
      if (*group.member->ended) throw InternalError("a question about a group at its end");
      if (state_->failed) throw CollectiveError("a group: NCCL error 6: a remote rank is gone");
      if (!group.in_progress) return true;
      if (state_->frozen || group.questions-- > 0) return false;
      group.in_progress = false;
    }
    if (!group.called.empty()) reach_stream(group);
    return true;
  }
  void finalize(Group& group) override {
    const std::lock_guard lock(state_->mutex);
    require_settled(group);
    for (const auto& part : group.asked)
      if (!part->done) throw CollectiveError("a group is left with a call under way");
    group.finalized = true;
    begin(group);
  }
  void destroy(Group& group) override {
    const std::unique_ptr<Group> owned(&group);
    const std::lock_guard lock(state_->mutex);
    if (group.member->graphs > 0) fail("a group ends before a graph that holds it");
    if (!*group.member->ended && (!group.finalized || group.in_progress)) fail("destroyed, but not finalized");
  }
  void abort(Group& group) override {
    const std::shared_ptr<Membership> member = group.member;
    {
      const std::lock_guard lock(state_->mutex);
      *member->ended = true;
    }
    while (member->graphs > 0) std::this_thread::yield();  // as NCCL does
  }

  void begin_calls() override { together_ = true; }
  void end_calls() override {
    together_ = false;
    const std::lock_guard lock(state_->mutex);
    for (Group* group : called_) {
      begin(*group);
      if (group->stream != nullptr) {
        streams_->begin_hand_over(group->stream);
        continue;
      }
      for (const auto& part : std::exchange(group->called, {})) {
        group->asked.push_back(part);
        if (!state_->frozen) arrive(*group->member, part);
      }
    }
    called_.clear();
  }
  void all_reduce(Group& group, const Call& call) override { note(group, "all_reduce", call); }
  void all_gather(Group& group, const Call& call) override { note(group, "all_gather", call); }
  void reduce_scatter(Group& group, const Call& call) override { note(group, "reduce_scatter", call); }
  void broadcast(Group& group, const Call& call) override { note(group, "broadcast", call); }
  void reduce(Group& group, const Call& call) override { note(group, "reduce", call); }
  void send(Group& group, const Call& call) override { note(group, "send", call); }
  void receive(Group& group, const Call& call) override { note(group, "recv", call); }
  void copy(Group& group, const void* from, void* to, std::int64_t bytes) override {
    note(group, "copy", {from, to, bytes});
  }

  Mark* mark(Group& group) override {
    const std::lock_guard lock(state_->mutex);
    require_settled(group);
    return new Mark{group.asked};
  }
  bool passed(Mark& mark) override {
    const std::lock_guard lock(state_->mutex);
    return std::all_of(mark.behind.begin(), mark.behind.end(), [](const auto& part) { return part->done; });
  }
  void release(Mark& mark) override { delete &mark; }

 private:
  /// Where nothing can be thrown.
  [[noreturn]] static void fail(const char* what) {
    std::fprintf(stderr, "%s\n", what);
    std::abort();
  }
  void begin(Group& group) {
    group.in_progress = true;
    group.questions = static_cast<int>(state_->engine() % 4);
  }
  static void require_settled(const Group& group) {
    if (*group.member->ended || group.in_progress)
      throw InternalError("a call on a group that is in progress, or at its end");
    if (group.member->replays > 0) throw InternalError("a call on a group while a replay of it is under way");
  }
  void note(Group& group, const char* name, const Call& call) {
    const std::lock_guard lock(state_->mutex);
    if (!together_) throw InternalError("a call outside of begin_calls and end_calls");
    require_settled(group);
    if (issued_ != nullptr) issued_->push_back(name);
    if (std::find(called_.begin(), called_.end(), &group) == called_.end()) called_.push_back(&group);
    group.called.push_back(std::make_shared<Part>(Part{name, call}));
  }

  /// What was called together is one order of the stream: a hop's send and receive wait for each other's ends.
  void reach_stream(Group& group) {
    OrderDraft draft{.name = group.called.front()->name, .make = {}, .accesses = {}, .resource = group.member};
    for (const auto& part : group.called) add_accesses(*part, group.member->shared->size, draft.accesses);
    draft.make = [state = state_, member = group.member, calls = std::exchange(group.called, {})]() -> OrderRun {
      return [state, member, calls, parts = std::vector<std::shared_ptr<Part>>()]() mutable {
        const std::lock_guard lock(state->mutex);
        if (*member->ended) return true;  // an abort lets kernels go
        if (state->frozen) return false;
        for (std::size_t i = parts.size(); i < calls.size(); ++i) {
          parts.push_back(std::make_shared<Part>(*calls[i]));
          arrive(*member, parts.back());
        }
        return std::all_of(parts.begin(), parts.end(), [](const auto& part) { return part->done; });
      };
    };
    streams_->end_hand_over(group.stream);
    streams_->put(group.stream, std::move(draft));
  }

  std::shared_ptr<NcclFabric::State> state_;
  std::vector<std::string>* issued_;
  FakeStreams* streams_;
  bool together_ = false;
  std::vector<Group*> called_;
};

}  // namespace

NcclFabric::NcclFabric(std::uint64_t seed) : state_(std::make_shared<State>()) { state_->engine.seed(seed); }
NcclFabric::~NcclFabric() = default;
std::unique_ptr<NcclLibrary> NcclFabric::library(std::vector<std::string>* issued, FakeStreams* streams) {
  return std::make_unique<FakeNccl>(state_, issued, streams);
}
void NcclFabric::freeze() {
  const std::lock_guard lock(state_->mutex);
  state_->frozen = true;
}
void NcclFabric::fail() {
  const std::lock_guard lock(state_->mutex);
  state_->failed = true;
}

}  // namespace testing
}  // namespace annulus
