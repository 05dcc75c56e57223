#include "collectives/mpi_communicator.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <utility>
#include <vector>

#include "collectives/mpi_group.h"
#include "collectives/mpi_hosts.h"
#include "collectives/reduce.h"

namespace annulus {
namespace {

// Tags. Those of reductions are numbered: two may be under way in one group, each with several exchanges.
constexpr int kMessageTag = 32000;
constexpr int kShiftTag = 32001;
constexpr int kReductions = 8000;
static_assert(kReductions * kTagsOfReduction <= kMessageTag);

constexpr std::int64_t kLargestWindowShift = 128 * 1024;  // bytes

/// A message, or a collective of MPI's.
class ExchangeOperation final : public Operation {
 public:
  ExchangeOperation(const MpiGroup& group, const Request& request) : exchange(group, request) {}
  bool advance() override { return exchange.test(); }
  Transport transport() const override { return Transport::messages; }
  MpiExchange exchange;
};

void start_collective(const MpiGroup& group, const Request& request, MPI_Request* handle) {
  const MpiElements part(group, request, request.count);
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

class MpiCommunicator final : public RequestCommunicator {
 public:
  MpiCommunicator(std::shared_ptr<MpiShared> shared, MPI_Comm handle, int world_rank) {
    group_.shared = std::move(shared);
    group_.handle = handle;
    MPI_Comm_rank(handle, &group_.rank);
    MPI_Comm_size(handle, &group_.size);
    group_.members = gathered(group_, world_rank);
    group_.hosts = gathered(group_, SharedSegment::this_host() + group_.shared->options.host_salt);
    window_ = open_window(group_);
    if (const std::optional<HostGrid> grid = host_grid_of(group_); grid && options().window_slot_bytes > 0)
      make_hierarchy(*grid);
  }
  MpiCommunicator(const MpiCommunicator&) = delete;
  MpiCommunicator& operator=(const MpiCommunicator&) = delete;
  ~MpiCommunicator() override {
    // While an exception unwinds, the other ranks do not come along; the job is about to be aborted.
    if (std::uncaught_exceptions() <= group_.shared->exceptions) MPI_Comm_free(&group_.handle);
  }

  int size() const override { return group_.size; }
  int rank() const override { return group_.rank; }

  int hosts() const override { return hosts_of(group_); }
  bool has_hierarchy() const override { return hierarchy_ != nullptr; }
  void choose_transports(TransportChoice choice) override { group_.shared->choice = std::move(choice); }

  std::unique_ptr<Communicator> split(int color, int key) override {
    // MPI allows no negative colors: a group is named by its first member instead.
    const std::vector<int> members = group_of(exchange_colors(color, key), rank());
    const auto place = std::find(members.begin(), members.end(), rank()) - members.begin();
    return part(members.front(), static_cast<int>(place));
  }

  std::shared_ptr<std::byte> allocate_shared(std::int64_t bytes) override {
    if (size() == 1 || options().window_slot_bytes == 0) return nullptr;
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
      return completed_transfer(Transport::direct);
    }
    return ProgressEngine::start(group_.shared->progress, operation_of(request));
  }

 private:
  std::unique_ptr<Operation> operation_of(const Request& request) {
    const bool fits_window = window_ && !is_message(request.kind);
    if (fits_window && (window_->has_memory() || !is_large_shift(request))) return window_->start(request);
    if (hierarchy_ && Hierarchy::carries(request.kind) && chosen(request) == Transport::hierarchical)
      return hierarchy_->start(request);
    if (has_reduction(request.kind)) {
      const auto exchange = [&] { return std::make_unique<MpiExchange>(group_, request); };
      return std::make_unique<MessageReduction>(
          request, rank(), size(), MessageSizes{options().small_bytes, options().scratch_bytes},
          reductions_++ % kReductions * kTagsOfReduction, group_.shared->scratch, exchange(), exchange());
    }
    auto operation = std::make_unique<ExchangeOperation>(group_, request);
    MpiExchange& exchange = operation->exchange;
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

  Transport chosen(const Request& request) const {
    const TransportChoice& choice = group_.shared->choice;
    return choice ? choice(request.kind, size(), hosts(), payload_bytes(request, size())) : Transport::hierarchical;
  }

  std::unique_ptr<MpiCommunicator> part(int color, int key) const {
    MPI_Comm handle = MPI_COMM_NULL;
    check(MPI_Comm_split(group_.handle, color, key, &handle), group_,
          {CollectiveKind::all_gather, nullptr, nullptr, 2, DType::i32});
    return std::make_unique<MpiCommunicator>(group_.shared, handle, world_rank());
  }

  void make_hierarchy(const HostGrid& grid) {
    within_ = part(grid.host, grid.place);
    between_ = part(grid.place, grid.host);
    hierarchy_ = std::make_unique<Hierarchy>(HierarchyParts{
        grid, [this](const Request& request) { return within_->operation_of(request); },
        [this](const Request& request) { return between_->operation_of(request); },
        [this](const Request& request) { return std::make_unique<MpiExchange>(between_->group_, request); },
        group_.shared->scratch});
  }

  const MpiOptions& options() const { return group_.shared->options; }
  int world_rank() const { return group_.members[static_cast<std::size_t>(rank())]; }

  MpiGroup group_;
  std::unique_ptr<WindowQueue> window_;  // where all ranks are on one host that has room for it
  std::unique_ptr<MpiCommunicator> within_, between_;
  std::unique_ptr<Hierarchy> hierarchy_;  // where they are on several, as a grid
  int reductions_ = 0;
};

}  // namespace

std::unique_ptr<Communicator> mpi_world(const MpiOptions& options) {
  auto shared = std::make_shared<MpiShared>();
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
