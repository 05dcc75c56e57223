#include "collectives/request.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <functional>

namespace annulus {
namespace {

bool overlap(const BufferRange& one, const BufferRange& other) {
  const std::less<const std::byte*> before;  // a total order, also of pointers into different arrays
  return one.bytes > 0 && other.bytes > 0 && before(one.begin, other.begin + other.bytes) &&
         before(other.begin, one.begin + one.bytes);
}

}  // namespace

Buffers buffers_of(const Request& request, int rank, int size) {
  const auto* send = static_cast<const std::byte*>(request.send);
  const auto* receive = static_cast<const std::byte*>(request.receive);
  const std::int64_t one = request.bytes();
  const std::int64_t all = one * size;
  const bool root = rank == request.peer;
  const bool same = send == receive;
  const bool into_part = receive != nullptr && send == receive + rank * one;
  const bool from_part = send != nullptr && receive == send + rank * one;
  switch (request.kind) {
    case CollectiveKind::all_reduce:
      return {{send, one}, {receive, one}, same};
    case CollectiveKind::all_gather:
      return {{send, one}, {receive, all}, into_part};
    case CollectiveKind::reduce_scatter:
      return {{send, all}, {receive, one}, from_part};
    case CollectiveKind::all_to_all:
      return {{send, all}, {receive, all}};
    case CollectiveKind::broadcast:
      return {{send, one}, {receive, one}, true};
    case CollectiveKind::gather:
      return {{send, one}, {receive, root ? all : 0}, into_part};
    case CollectiveKind::scatter:
      return {{send, root ? all : 0}, {receive, one}, from_part};
    case CollectiveKind::reduce:
      return {{send, one}, {receive, root ? one : 0}, same};
    case CollectiveKind::send:
      return {{send, one}, {receive, 0}};
    case CollectiveKind::recv:
      return {{send, 0}, {receive, one}};
    case CollectiveKind::shift:
      return {{send, one}, {receive, one}};
  }
  return {};
}

bool has_reduction(CollectiveKind kind) {
  return kind == CollectiveKind::all_reduce || kind == CollectiveKind::reduce_scatter || kind == CollectiveKind::reduce;
}

bool is_message(CollectiveKind kind) { return kind == CollectiveKind::send || kind == CollectiveKind::recv; }

std::string describe(const Request& request) {
  std::string text = fmt::format("{}(count={}, {}", name_of(request.kind), request.count, name_of(request.dtype));
  if (has_reduction(request.kind)) text += fmt::format(", {}", name_of(request.reduction));
  switch (request.kind) {
    case CollectiveKind::broadcast:
    case CollectiveKind::gather:
    case CollectiveKind::scatter:
    case CollectiveKind::reduce:
      text += fmt::format(", root {}", request.peer);
      break;
    case CollectiveKind::send:
      text += fmt::format(", to {}", request.peer);
      break;
    case CollectiveKind::recv:
      text += fmt::format(", from {}", request.peer);
      break;
    case CollectiveKind::shift:
      text += fmt::format(", distance {}", request.peer);
      break;
    default:
      break;
  }
  return text + ")";
}

bool agrees(const Request& one, const Request& other) {
  if (one.count != other.count || one.dtype != other.dtype) return false;
  if (is_message(one.kind)) return is_message(other.kind) && one.kind != other.kind;
  return one.kind == other.kind && one.peer == other.peer &&
         (!has_reduction(one.kind) || one.reduction == other.reduction);
}

std::int64_t payload_bytes(const Request& request, int size) {
  switch (request.kind) {
    case CollectiveKind::all_gather:
    case CollectiveKind::reduce_scatter:
    case CollectiveKind::all_to_all:
    case CollectiveKind::gather:
    case CollectiveKind::scatter:
      return request.bytes() * size;
    default:
      return request.bytes();
  }
}

Communicator::Pending RequestCommunicator::checked(const Request& request) {
  const auto refuse = [&](const std::string& why) -> void {
    throw CollectiveError(fmt::format("{} on rank {} of {}: {}", describe(request), rank(), size(), why));
  };
  if (request.count < 0) refuse("the count is negative");
  if (request.peer < 0 || request.peer >= size()) refuse(fmt::format("ranks of this group are 0 to {}", size() - 1));
  const Buffers buffers = buffers_of(request, rank(), size());
  if ((buffers.send.begin == nullptr && buffers.send.bytes > 0) ||
      (buffers.receive.begin == nullptr && buffers.receive.bytes > 0)) {
    refuse("a buffer is missing");
  }
  if (!buffers.in_place && overlap(buffers.send, buffers.receive)) {
    refuse("send and receive buffers overlap; only the in-place form may (see runtime/core/communicator.h)");
  }
  CommunicatorCounters& counters = counters_[static_cast<std::size_t>(request.kind)];
  ++counters.calls;
  counters.payload_bytes += payload_bytes(request, size());
  return start(request);
}

Communicator::Pending RequestCommunicator::all_reduce(const void* send, void* receive, std::int64_t count, DType dtype,
                                                      Reduction reduction) {
  return checked({CollectiveKind::all_reduce, send, receive, count, dtype, reduction});
}

Communicator::Pending RequestCommunicator::all_gather(const void* send, void* receive, std::int64_t count,
                                                      DType dtype) {
  return checked({CollectiveKind::all_gather, send, receive, count, dtype});
}

Communicator::Pending RequestCommunicator::reduce_scatter(const void* send, void* receive, std::int64_t count,
                                                          DType dtype, Reduction reduction) {
  return checked({CollectiveKind::reduce_scatter, send, receive, count, dtype, reduction});
}

Communicator::Pending RequestCommunicator::all_to_all(const void* send, void* receive, std::int64_t count,
                                                      DType dtype) {
  return checked({CollectiveKind::all_to_all, send, receive, count, dtype});
}

Communicator::Pending RequestCommunicator::broadcast(void* buffer, std::int64_t count, DType dtype, int root) {
  return checked({CollectiveKind::broadcast, buffer, buffer, count, dtype, Reduction::sum, root});
}

Communicator::Pending RequestCommunicator::gather(const void* send, void* receive, std::int64_t count, DType dtype,
                                                  int root) {
  return checked({CollectiveKind::gather, send, receive, count, dtype, Reduction::sum, root});
}

Communicator::Pending RequestCommunicator::scatter(const void* send, void* receive, std::int64_t count, DType dtype,
                                                   int root) {
  return checked({CollectiveKind::scatter, send, receive, count, dtype, Reduction::sum, root});
}

Communicator::Pending RequestCommunicator::reduce(const void* send, void* receive, std::int64_t count, DType dtype,
                                                  Reduction reduction, int root) {
  return checked({CollectiveKind::reduce, send, receive, count, dtype, reduction, root});
}

Communicator::Pending RequestCommunicator::send(const void* buffer, std::int64_t count, DType dtype, int peer) {
  return checked({CollectiveKind::send, buffer, nullptr, count, dtype, Reduction::sum, peer});
}

Communicator::Pending RequestCommunicator::recv(void* buffer, std::int64_t count, DType dtype, int peer) {
  return checked({CollectiveKind::recv, nullptr, buffer, count, dtype, Reduction::sum, peer});
}

Communicator::Pending RequestCommunicator::shift(const void* send, void* receive, std::int64_t count, DType dtype,
                                                 int distance) {
  const int forward = (distance % size() + size()) % size();
  return checked({CollectiveKind::shift, send, receive, count, dtype, Reduction::sum, forward});
}

std::vector<std::int32_t> RequestCommunicator::exchange_colors(int color, int key) {
  const std::int32_t own[2] = {color, key};
  std::vector<std::int32_t> colors(2 * static_cast<std::size_t>(size()));
  wait(start({CollectiveKind::all_gather, own, colors.data(), 2, DType::i32}));
  return colors;
}

std::vector<int> group_of(const std::vector<std::int32_t>& colors, int rank) {
  std::vector<int> members;
  for (int other = 0; other < static_cast<int>(colors.size() / 2); ++other) {
    if (colors[2 * other] == colors[2 * rank]) members.push_back(other);
  }
  std::stable_sort(members.begin(), members.end(),
                   [&](int one, int other) { return colors[2 * one + 1] < colors[2 * other + 1]; });
  return members;
}

}  // namespace annulus
