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

/// What goes by messages within a host as well: MPI copies a large one once, a window twice. (2 ranks, 1 MiB: 102 us
/// against 134 us; at 64 KiB 8.7 against 7.4.)
bool by_message(const Request& request) {
  return is_message(request.kind) || (request.kind == CollectiveKind::shift && request.bytes() > kLargestWindowShift);
}

/// A window shared by all ranks of the group; null where they are on several hosts, or shared memory is full.
/// Collective.
std::unique_ptr<WindowQueue> open_window(const Group& group) {
  const Request named{CollectiveKind::broadcast, nullptr, nullptr, 0, DType::i32};  // in the message of an error
  const std::int64_t slot_bytes = std::max<std::int64_t>(group.shared->options.window_slot_bytes, 64 * group.size);
  if (group.size == 1 || group.shared->options.window_slot_bytes == 0) return nullptr;
  std::unique_ptr<SharedWindow> window;
  std::string name;
  if (group.rank == 0) window = SharedWindow::create(group.size, slot_bytes, name);
  name.resize(64);
  check(MPI_Bcast(name.data(), static_cast<int>(name.size()), MPI_CHAR, 0, group.handle), group, named);
  if (group.rank > 0) window = SharedWindow::open(name.c_str(), group.size, slot_bytes);
  int has_window = window ? 1 : 0;
  check(MPI_Allreduce(MPI_IN_PLACE, &has_window, 1, MPI_INT, MPI_MIN, group.handle), group, named);
  if (group.rank == 0) SharedWindow::unlink(name.c_str());
  return has_window ? std::make_unique<WindowQueue>(std::move(window), group.rank) : nullptr;
}

class MpiCommunicator final : public RequestCommunicator {
 public:
  explicit MpiCommunicator(std::shared_ptr<Shared> shared, MPI_Comm handle) {
    group_.shared = std::move(shared);
    group_.handle = handle;
    MPI_Comm_rank(handle, &group_.rank);
    MPI_Comm_size(handle, &group_.size);
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
    return std::make_unique<MpiCommunicator>(group_.shared, handle);
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
    if (window_ && !by_message(request)) return window_->start(request);
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
  return std::make_unique<MpiCommunicator>(std::move(shared), handle);
}

}  // namespace annulus
