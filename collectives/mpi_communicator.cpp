#include "collectives/mpi_communicator.h"

#define OMPI_SKIP_MPICXX 1
#include <fmt/format.h>
#include <mpi.h>

#include <algorithm>
#include <exception>
#include <limits>
#include <utility>
#include <vector>

#include "collectives/message_reduction.h"
#include "collectives/progress.h"
#include "collectives/reduce.h"
#include "collectives/request.h"
#include "collectives/shared_window.h"

namespace annulus {
namespace {

// Tags. Those of reductions are numbered: two may be under way in one group, each with several exchanges.
constexpr int kMessageTag = 32000;
constexpr int kShiftTag = 32001;
constexpr int kReductions = 8000;
static_assert(kReductions * kTagsOfReduction <= kMessageTag);

constexpr std::int64_t kLargestWindowShift = 128 * 1024;  // bytes

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
  std::shared_ptr<ProgressEngine> progress = std::make_shared<ProgressEngine>();
  std::shared_ptr<ScratchPool> scratch = std::make_shared<ScratchPool>();
  std::shared_ptr<PeerMemory> memory = std::make_shared<PeerMemory>();
  int world_size = 0;
  int exceptions = std::uncaught_exceptions();
};

/// One group as MPI knows it, and the name of the call under way for its errors.
struct Group {
  std::shared_ptr<Shared> shared;
  MPI_Comm handle = MPI_COMM_NULL;
  int rank = 0;
  int size = 0;
  std::vector<int> members;  // ranks of the world
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
class Exchange final : public MessageExchange {
 public:
  Exchange(const Group& group, const Request& request) : group_(group), request_(request) {}

  void send(const std::byte* buffer, std::int64_t count, int peer, int tag) override {
    const Elements elements(group_, request_, count);
    check(MPI_Isend(buffer, elements.count(), elements.type(), peer, tag, group_.handle, &next()), group_, request_);
  }
  void receive(std::byte* buffer, std::int64_t count, int peer, int tag) override {
    const Elements elements(group_, request_, count);
    check(MPI_Irecv(buffer, elements.count(), elements.type(), peer, tag, group_.handle, &next()), group_, request_);
  }
  MPI_Request& next() { return requests_.emplace_back(MPI_REQUEST_NULL); }

  bool test() override {
    int done = 0;
    statuses_.resize(requests_.size());
    const int code = MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, statuses_.data());
    if (code == MPI_ERR_IN_STATUS) {
      for (const MPI_Status& status : statuses_) {
        if (status.MPI_ERROR != MPI_ERR_PENDING) check(status.MPI_ERROR, group_, request_);
      }
    }
    check(code, group_, request_);
    if (done) requests_.clear();
    return done != 0;
  }

 private:
  const Group& group_;
  const Request request_;
  std::vector<MPI_Request> requests_;
  std::vector<MPI_Status> statuses_;
};

/// A message, or a collective of MPI's.
class ExchangeOperation final : public Operation {
 public:
  ExchangeOperation(const Group& group, const Request& request) : exchange(group, request) {}
  bool advance() override { return exchange.test(); }
  Transport transport() const override { return Transport::messages; }
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

/// A group of one: what it receives is what it sends.
void copy_to_self(const Request& request) {
  if (request.receive != nullptr && request.send != nullptr) copy_bytes(request.receive, request.send, request.bytes());
}

/// Without shared memory, what goes by messages within a host as well: MPI copies a large one once, a window twice.
/// (2 ranks, 1 MiB: 102 us against 134 us; at 64 KiB 8.7 against 7.4.)
bool is_large_shift(const Request& request) {
  return request.kind == CollectiveKind::shift && request.bytes() > kLargestWindowShift;
}

/// Every rank's `mine`, by rank.
template <class T>
std::vector<T> gathered(const Group& group, const T& mine) {
  std::vector<T> all(static_cast<std::size_t>(group.size));
  check(MPI_Allgather(&mine, sizeof(T), MPI_BYTE, all.data(), sizeof(T), MPI_BYTE, group.handle), group,
        {CollectiveKind::all_gather, nullptr, nullptr, sizeof(T) / 4, DType::i32});
  return all;
}

bool all_of_group(const Group& group, bool mine) {
  const std::vector<char> all = gathered(group, static_cast<char>(mine));
  return std::find(all.begin(), all.end(), 0) == all.end();
}

/// The segments of all ranks of this host, by rank, `own` among them; empty, on all ranks, where any could not be
/// opened or none would have another rank's. Collective.
using Segments = std::vector<std::unique_ptr<SharedSegment>>;
Segments exchange_segments(const Group& group, std::unique_ptr<SharedSegment> own) {
  const std::vector<SegmentName> names = gathered(group, own ? own->name() : SegmentName{});
  Segments segments(names.size());
  bool alone = true, complete = own != nullptr;
  for (int rank = 0; complete && rank < group.size; ++rank) {
    const SegmentName& name = names[static_cast<std::size_t>(rank)];
    if (rank == group.rank || name.host != own->name().host) continue;
    alone = false;
    complete = (segments[static_cast<std::size_t>(rank)] = SharedSegment::open(name)) != nullptr;
  }
  complete = all_of_group(group, complete);
  if (all_of_group(group, alone) || !complete) return {};
  own->withdraw();
  segments[static_cast<std::size_t>(group.rank)] = std::move(own);
  return segments;
}

/// A window shared by all ranks of the group; null where they are on several hosts, or have no memory for it.
/// Collective.
std::unique_ptr<WindowQueue> open_window(const Group& group) {
  const std::int64_t slot_bytes =
      std::max({group.shared->options.window_slot_bytes, std::int64_t{64} * group.size, kLeastSlotBytes});
  if (group.size == 1 || group.shared->options.window_slot_bytes == 0) return nullptr;
  std::unique_ptr<SharedSegment> segment;
  if (group.rank == 0) segment = SharedSegment::create(SharedWindow::total_bytes(group.size, slot_bytes));
  const SegmentName name = gathered(group, segment ? segment->name() : SegmentName{}).front();
  if (group.rank > 0) segment = SharedSegment::open(name);
  if (!all_of_group(group, segment != nullptr)) return nullptr;
  segment->withdraw();
  return std::make_unique<WindowQueue>(std::make_unique<SharedWindow>(std::move(segment), group.size, slot_bytes),
                                       GroupMemory{group.shared->memory, group.members}, group.rank);
}

class MpiCommunicator final : public RequestCommunicator {
 public:
  MpiCommunicator(std::shared_ptr<Shared> shared, MPI_Comm handle, int world_rank) {
    group_.shared = std::move(shared);
    group_.handle = handle;
    MPI_Comm_rank(handle, &group_.rank);
    MPI_Comm_size(handle, &group_.size);
    group_.members = gathered(group_, world_rank);
    window_ = open_window(group_);
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
    return std::make_unique<MpiCommunicator>(group_.shared, handle, world_rank());
  }

  std::shared_ptr<std::byte> allocate_shared(std::int64_t bytes) override {
    if (size() == 1 || group_.shared->options.window_slot_bytes == 0) return nullptr;
    auto segments = std::make_shared<Segments>(exchange_segments(group_, SharedSegment::create(bytes)));
    if (segments->empty()) return nullptr;
    std::vector<std::byte*> of_ranks(static_cast<std::size_t>(group_.shared->world_size));
    for (int other = 0; other < size(); ++other)
      if (const auto& segment = (*segments)[static_cast<std::size_t>(other)])
        of_ranks[static_cast<std::size_t>(group_.members[static_cast<std::size_t>(other)])] = segment->data();
    std::byte* const own = of_ranks[static_cast<std::size_t>(world_rank())];
    const std::int64_t region = group_.shared->memory->add(own, bytes, std::move(of_ranks));
    return {own, [segments, region, memory = group_.shared->memory](std::byte*) { memory->remove(region); }};
  }

 protected:
  Pending start(const Request& request) override {
    if (size() == 1 && !is_message(request.kind)) {
      copy_to_self(request);
      return completed_transfer();
    }
    return ProgressEngine::start(group_.shared->progress, operation_of(request));
  }

 private:
  std::unique_ptr<Operation> operation_of(const Request& request) {
    const bool fits_window = window_ && !is_message(request.kind);
    if (fits_window && (window_->has_memory() || !is_large_shift(request))) return window_->start(request);
    if (has_reduction(request.kind)) {
      const auto exchange = [&] { return std::make_unique<Exchange>(group_, request); };
      const MpiOptions& options = group_.shared->options;
      return std::make_unique<MessageReduction>(
          request, rank(), size(), MessageSizes{options.small_bytes, options.scratch_bytes},
          reductions_++ % kReductions * kTagsOfReduction, group_.shared->scratch, exchange(), exchange());
    }
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

  int world_rank() const { return group_.members[static_cast<std::size_t>(rank())]; }

  Group group_;
  std::unique_ptr<WindowQueue> window_;  // where all ranks are on one host that has room for it
  int reductions_ = 0;
};

}  // namespace

std::unique_ptr<Communicator> mpi_world(const MpiOptions& options) {
  auto shared = std::make_shared<Shared>();
  shared->options = options;
  MPI_Comm handle = MPI_COMM_NULL;
  MPI_Comm_dup(MPI_COMM_WORLD, &handle);
  MPI_Comm_set_errhandler(handle, MPI_ERRORS_RETURN);
  int rank = 0;
  MPI_Comm_rank(handle, &rank);
  MPI_Comm_size(handle, &shared->world_size);
  return std::make_unique<MpiCommunicator>(std::move(shared), handle, rank);
}

}  // namespace annulus
