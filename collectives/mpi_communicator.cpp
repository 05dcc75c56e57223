#include "collectives/mpi_communicator.h"

#define OMPI_SKIP_MPICXX 1
#include <fmt/format.h>
#include <mpi.h>

#include <algorithm>
#include <exception>
#include <limits>
#include <utility>
#include <vector>

#include "collectives/progress.h"
#include "collectives/reduce.h"
#include "collectives/request.h"

namespace annulus {
namespace {

// Tags. Those of reductions are numbered: two may be under way in one group, each with several exchanges.
constexpr int kMessageTag = 32000;
constexpr int kShiftTag = 32001;
constexpr int kReductions = 8000;
constexpr int kTagsOfReduction = 4;  // two segments under way, two stages each
static_assert(kReductions * kTagsOfReduction <= kMessageTag);

MPI_Datatype type_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return MPI_FLOAT;
    case DType::f64:
      return MPI_DOUBLE;
    case DType::i32:
      return MPI_INT32_T;
  }
  return MPI_DATATYPE_NULL;
}

/// What all communicators of a rank share.
struct Shared {
  MpiOptions options;
  std::shared_ptr<Progress> progress = std::make_shared<Progress>();
  std::vector<std::vector<std::byte>> spare_scratch;  // kept, since fresh pages are dear
  int exceptions = std::uncaught_exceptions();
};

/// One group as MPI knows it, and the name of the call under way for its errors.
struct Group {
  std::shared_ptr<Shared> shared;
  MPI_Comm handle = MPI_COMM_NULL;
  int rank = 0;
  int size = 0;
};

void check(int code, const Group& group, const Request& request) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw CollectiveError(
      fmt::format("{} on rank {} of {}: MPI error {}: {}", describe(request), group.rank, group.size, code, text));
}

/// `count` elements as a (count, type) pair that fits MPI's int, also where MPI multiplies it by the size of the group.
class Elements {
 public:
  Elements(const Group& group, const Request& request, std::int64_t count)
      : type_(type_of(request.dtype)), count_(static_cast<int>(count)) {
    const std::int64_t limit = group.shared->options.largest_count;
    if (count * group.size <= limit) return;
    const MPI_Datatype base = type_;
    const std::int64_t blocks = count / limit;
    MPI_Datatype block = MPI_DATATYPE_NULL;
    check(MPI_Type_contiguous(static_cast<int>(limit), base, &block), group, request);
    const int lengths[2] = {static_cast<int>(blocks), static_cast<int>(count % limit)};
    const MPI_Aint offsets[2] = {0, static_cast<MPI_Aint>(blocks * limit * size_of(request.dtype))};
    const MPI_Datatype types[2] = {block, base};
    check(MPI_Type_create_struct(2, lengths, offsets, types, &type_), group, request);
    owned_ = true;
    check(MPI_Type_commit(&type_), group, request);
    MPI_Type_free(&block);
    count_ = 1;
  }
  Elements(const Elements&) = delete;
  Elements& operator=(const Elements&) = delete;
  ~Elements() {
    if (owned_) MPI_Type_free(&type_);  // MPI keeps it while a transfer uses it
  }

  int count() const { return count_; }
  MPI_Datatype type() const { return type_; }

 private:
  MPI_Datatype type_;
  int count_;
  bool owned_ = false;
};

/// MPI requests that complete together.
class Exchange {
 public:
  Exchange(const Group& group, const Request& request) : group_(group), request_(request) {}

  void send(const std::byte* buffer, std::int64_t count, int peer, int tag) {
    if (count == 0 && request_.kind != CollectiveKind::send) return;
    const Elements elements(group_, request_, count);
    check(MPI_Isend(buffer, elements.count(), elements.type(), peer, tag, group_.handle, &next()), group_, request_);
  }
  void receive(std::byte* buffer, std::int64_t count, int peer, int tag) {
    if (count == 0 && request_.kind != CollectiveKind::recv) return;
    const Elements elements(group_, request_, count);
    check(MPI_Irecv(buffer, elements.count(), elements.type(), peer, tag, group_.handle, &next()), group_, request_);
  }
  MPI_Request& next() { return requests_.emplace_back(MPI_REQUEST_NULL); }

  bool test() {
    int done = 0;
    check(MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, MPI_STATUSES_IGNORE), group_,
          request_);
    if (done) requests_.clear();
    return done != 0;
  }

 private:
  const Group& group_;
  const Request request_;
  std::vector<MPI_Request> requests_;
};

/// A message, or a collective of MPI's.
class ExchangeOperation final : public Operation {
 public:
  ExchangeOperation(const Group& group, const Request& request) : exchange(group, request) {}
  bool advance() override { return exchange.test(); }
  Exchange exchange;
};

void start_collective(const Group& group, const Request& request, MPI_Request* handle) {
  const Elements part(group, request, request.count);
  const auto [kind, send, receive, count, dtype, reduction, root] = request;
  const auto n = part.count();
  const auto type = part.type();
  const bool is_root = group.rank == root;
  const bool into_part = send == request.receive_part(group.rank);
  const bool from_part = receive == request.send_part(group.rank);
  const auto start = [&]() -> int {
    switch (kind) {
      case CollectiveKind::all_gather:
        return MPI_Iallgather(into_part ? MPI_IN_PLACE : send, n, type, receive, n, type, group.handle, handle);
      case CollectiveKind::all_to_all:
        return MPI_Ialltoall(send, n, type, receive, n, type, group.handle, handle);
      case CollectiveKind::broadcast:
        return MPI_Ibcast(receive, n, type, root, group.handle, handle);
      case CollectiveKind::gather:
        return MPI_Igather(is_root && into_part ? MPI_IN_PLACE : send, n, type, receive, n, type, root, group.handle,
                           handle);
      case CollectiveKind::scatter:
        return MPI_Iscatter(send, n, type, is_root && from_part ? MPI_IN_PLACE : receive, n, type, root, group.handle,
                            handle);
      default:
        throw InternalError(fmt::format("{} is no collective of MPI's", describe(request)));
    }
  };
  check(start(), group, request);
}

/// all_reduce, reduce and reduce_scatter by messages. Rank i owns slice i of the tensor: it receives that slice from
/// everyone, reduces in rank order, and for all_reduce and reduce sends the result on. Slices go in segments, two under
/// way at a time, so that scratch is bounded. A small all_reduce is one exchange: everyone owns everything.
class ReductionOperation final : public Operation {
 public:
  ReductionOperation(const Group& group, const Request& request, int number)
      : group_(group), request_(request), first_tag_(number % kReductions * kTagsOfReduction) {
    const MpiOptions& options = group.shared->options;
    one_exchange_ = request.kind == CollectiveKind::all_reduce &&
                    request.bytes() * (group.size - 1) <= std::min(options.small_bytes, options.scratch_bytes);
    const std::int64_t room = options.scratch_bytes / size_of(request.dtype) / (group.size - 1);
    segment_ = std::max<std::int64_t>(room, 1);
    for (int rank = 0; rank < group.size; ++rank) {
      longest_ = std::max(longest_, slice_begin(rank + 1) - slice_begin(rank));
    }
    if (one_exchange_) longest_ = request.count;
    for (int i = 0; i < 2; ++i) {
      lanes_.emplace_back(group, request);
      lanes_.back().segment = i;
      lanes_.back().tag = first_tag_ + 2 * i;
    }
  }

  bool advance() override {
    bool complete = true;
    for (Lane& lane : lanes_) {
      if (!advance(lane)) complete = false;
    }
    return complete;
  }

 private:
  enum class Stage : std::uint8_t { idle, gathering, spreading };
  struct Lane {
    Lane(const Group& group, const Request& request) : exchange(group, request), shared(*group.shared) {}
    Lane(Lane&&) = default;
    Lane& operator=(Lane&&) = delete;
    ~Lane() {
      if (!scratch.empty()) shared.spare_scratch.push_back(std::move(scratch));
    }
    Exchange exchange;
    Shared& shared;
    std::vector<std::byte> scratch;
    std::int64_t segment = 0;
    int tag = 0;
    Stage stage = Stage::idle;
  };
  struct Range {
    std::int64_t begin;
    std::int64_t count;
  };

  std::int64_t slice_begin(int rank) const {
    if (request_.kind == CollectiveKind::reduce_scatter) return request_.count * rank;
    return request_.count / group_.size * rank + std::min<std::int64_t>(rank, request_.count % group_.size);
  }
  /// The elements of `rank`'s slice that belong to a segment.
  Range range(int rank, std::int64_t segment) const {
    const std::int64_t slice = one_exchange_ ? 0 : slice_begin(rank);
    const std::int64_t end = one_exchange_ ? request_.count : slice_begin(rank + 1);
    const std::int64_t begin = std::min(slice + segment * segment_, end);
    return {begin, std::min(segment_, end - begin)};
  }
  const std::byte* sent(const Range& at) const {
    return static_cast<const std::byte*>(request_.send) + at.begin * size_of(request_.dtype);
  }
  /// Where the result of this rank's slice, or in an all_reduce of any, goes.
  std::byte* received(const Range& at) const {
    const std::int64_t begin =
        request_.kind == CollectiveKind::reduce_scatter ? at.begin - slice_begin(group_.rank) : at.begin;
    return static_cast<std::byte*>(request_.receive) + begin * size_of(request_.dtype);
  }

  bool advance(Lane& lane) {
    while (true) {
      if (lane.stage == Stage::idle) {
        if (lane.segment * segment_ >= longest_) return true;
        gather(lane);
        lane.stage = Stage::gathering;
      }
      if (!lane.exchange.test()) return false;
      if (lane.stage == Stage::gathering) {
        reduce(lane);
        spread(lane);
        lane.stage = Stage::spreading;
      } else {
        lane.stage = Stage::idle;
        lane.segment += 2;
      }
    }
  }

  template <class Function>
  void each_peer(Function function) const {
    for (int step = 1; step < group_.size; ++step) function((group_.rank + step) % group_.size);
  }

  std::byte* scratch_of(Lane& lane, int rank, std::int64_t count) const {
    const std::int64_t place = rank < group_.rank ? rank : rank - 1;
    return lane.scratch.data() + place * count * size_of(request_.dtype);
  }

  void gather(Lane& lane) {
    const Range own = range(group_.rank, lane.segment);
    reserve_scratch(lane, own.count * (group_.size - 1) * size_of(request_.dtype));
    each_peer([&](int peer) {
      const Range theirs = range(peer, lane.segment);
      lane.exchange.receive(scratch_of(lane, peer, own.count), own.count, peer, lane.tag);
      lane.exchange.send(sent(theirs), theirs.count, peer, lane.tag);
    });
  }

  void reserve_scratch(Lane& lane, std::int64_t bytes) {
    auto& spare = group_.shared->spare_scratch;
    if (lane.scratch.empty() && !spare.empty()) {
      lane.scratch = std::move(spare.back());
      spare.pop_back();
    }
    if (static_cast<std::int64_t>(lane.scratch.size()) < bytes) lane.scratch.resize(bytes);
  }

  void reduce(Lane& lane) {
    const Range own = range(group_.rank, lane.segment);
    std::vector<const std::byte*> inputs;
    for (int rank = 0; rank < group_.size; ++rank) {
      inputs.push_back(rank == group_.rank ? sent(own) : scratch_of(lane, rank, own.count));
    }
    // A rank that is not the root has no buffer for the result: it is sent from the scratch.
    std::byte* result = keeps_result() ? received(own) : lane.scratch.data();
    reduce_in_order(inputs, {&result, 1}, own.count, request_.dtype, request_.reduction);
  }

  bool keeps_result() const { return request_.kind != CollectiveKind::reduce || group_.rank == request_.peer; }

  void spread(Lane& lane) {
    if (request_.kind == CollectiveKind::reduce_scatter || one_exchange_) return;
    const Range own = range(group_.rank, lane.segment);
    each_peer([&](int peer) {
      const Range theirs = range(peer, lane.segment);
      const bool to_peer = request_.kind == CollectiveKind::all_reduce || peer == request_.peer;
      if (keeps_result()) lane.exchange.receive(received(theirs), theirs.count, peer, lane.tag + 1);
      if (to_peer) {
        lane.exchange.send(keeps_result() ? received(own) : lane.scratch.data(), own.count, peer, lane.tag + 1);
      }
    });
  }

  const Group& group_;
  const Request request_;
  const int first_tag_;
  bool one_exchange_ = false;
  std::int64_t segment_ = 0;  // elements
  std::int64_t longest_ = 0;  // elements of the longest slice
  std::vector<Lane> lanes_;
};

/// A group of one: what it receives is what it sends.
void copy_to_self(const Request& request) {
  if (request.receive != nullptr && request.send != nullptr) copy_bytes(request.receive, request.send, request.bytes());
}

class MpiCommunicator final : public RequestCommunicator {
 public:
  explicit MpiCommunicator(std::shared_ptr<Shared> shared, MPI_Comm handle) {
    group_.shared = std::move(shared);
    group_.handle = handle;
    MPI_Comm_rank(handle, &group_.rank);
    MPI_Comm_size(handle, &group_.size);
  }
  MpiCommunicator(const MpiCommunicator&) = delete;
  MpiCommunicator& operator=(const MpiCommunicator&) = delete;
  ~MpiCommunicator() override {
    // While an exception unwinds, the other ranks do not come along; the job is about to be aborted.
    if (std::uncaught_exceptions() <= group_.shared->exceptions) MPI_Comm_free(&group_.handle);
  }

  int size() const override { return group_.size; }
  int rank() const override { return group_.rank; }

  std::unique_ptr<Communicator> split(int color, int key) override {
    // MPI allows no negative colors: a group is named by its first member instead.
    const std::vector<int> members = group_of(exchange_colors(color, key), rank());
    const auto place = std::find(members.begin(), members.end(), rank()) - members.begin();
    MPI_Comm handle = MPI_COMM_NULL;
    check(MPI_Comm_split(group_.handle, members.front(), static_cast<int>(place), &handle), group_,
          {CollectiveKind::all_gather, nullptr, nullptr, 2, DType::i32});
    return std::make_unique<MpiCommunicator>(group_.shared, handle);
  }

 protected:
  Pending start(const Request& request) override {
    if (size() == 1 && !is_message(request.kind)) {
      copy_to_self(request);
      return completed_transfer();
    }
    return Progress::start(group_.shared->progress, operation_of(request));
  }

 private:
  std::unique_ptr<Operation> operation_of(const Request& request) {
    if (has_reduction(request.kind)) return std::make_unique<ReductionOperation>(group_, request, reductions_++);
    auto operation = std::make_unique<ExchangeOperation>(group_, request);
    Exchange& exchange = operation->exchange;
    switch (request.kind) {
      case CollectiveKind::send:
        exchange.send(request.send_part(0), request.count, request.peer, kMessageTag);
        break;
      case CollectiveKind::recv:
        exchange.receive(request.receive_part(0), request.count, request.peer, kMessageTag);
        break;
      case CollectiveKind::shift:
        exchange.receive(request.receive_part(0), request.count, (rank() + size() - request.peer) % size(), kShiftTag);
        exchange.send(request.send_part(0), request.count, (rank() + request.peer) % size(), kShiftTag);
        break;
      default:
        start_collective(group_, request, &exchange.next());
    }
    return operation;
  }

  Group group_;
  int reductions_ = 0;
};

}  // namespace

std::unique_ptr<Communicator> mpi_world(const MpiOptions& options) {
  auto shared = std::make_shared<Shared>();
  shared->options = options;
  MPI_Comm handle = MPI_COMM_NULL;
  MPI_Comm_dup(MPI_COMM_WORLD, &handle);
  MPI_Comm_set_errhandler(handle, MPI_ERRORS_RETURN);
  return std::make_unique<MpiCommunicator>(std::move(shared), handle);
}

}  // namespace annulus
