#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/core/communicator.h"

namespace annulus {

/// One call to a communicator, as its backends see it.
struct Request {
  CollectiveKind kind = CollectiveKind::all_reduce;
  const void* send = nullptr;
  void* receive = nullptr;
  std::int64_t count = 0;
  DType dtype = DType::f32;
  Reduction reduction = Reduction::sum;
  int peer = 0;  ///< the root, the other rank of a message, or the distance of a shift in 0 .. size - 1

  std::int64_t bytes() const { return count * size_of(dtype); }
  const std::byte* send_part(std::int64_t part) const { return static_cast<const std::byte*>(send) + part * bytes(); }
  std::byte* receive_part(std::int64_t part) const { return static_cast<std::byte*>(receive) + part * bytes(); }
};

bool has_reduction(CollectiveKind kind);
bool is_message(CollectiveKind kind);  ///< send or recv: two ranks take part, not the group

/// `all_reduce(count=12, f32, sum)`
std::string describe(const Request& request);

/// Whether two ranks of a group (or the two ends of a message) may meet with these calls.
bool agrees(const Request& one, const Request& other);

/// Bytes of the full tensor of a collective over `size` ranks, or of the message.
std::int64_t payload_bytes(const Request& request, int size);

/// Memory that a request reads or writes on one rank.
struct BufferRange {
  const std::byte* begin = nullptr;
  std::int64_t bytes = 0;
};
struct Buffers {
  BufferRange send;
  BufferRange receive;
  bool in_place = false;  ///< the one way in which the two may overlap
};
Buffers buffers_of(const Request& request, int rank, int size);

/// What the backends share: checks of the arguments and the counters. A backend implements `start` and `split`.
class RequestCommunicator : public Communicator {
 public:
  Pending all_reduce(const void* send, void* receive, std::int64_t count, DType dtype, Reduction reduction) final;
  Pending all_gather(const void* send, void* receive, std::int64_t count, DType dtype) final;
  Pending reduce_scatter(const void* send, void* receive, std::int64_t count, DType dtype, Reduction reduction) final;
  Pending all_to_all(const void* send, void* receive, std::int64_t count, DType dtype) final;
  Pending broadcast(void* buffer, std::int64_t count, DType dtype, int root) final;
  Pending gather(const void* send, void* receive, std::int64_t count, DType dtype, int root) final;
  Pending scatter(const void* send, void* receive, std::int64_t count, DType dtype, int root) final;
  Pending reduce(const void* send, void* receive, std::int64_t count, DType dtype, Reduction reduction, int root) final;
  Pending send(const void* buffer, std::int64_t count, DType dtype, int peer) final;
  Pending recv(void* buffer, std::int64_t count, DType dtype, int peer) final;
  Pending shift(const void* send, void* receive, std::int64_t count, DType dtype, int distance) final;

 protected:
  /// Begins a checked request.
  virtual Pending start(const Request& request) = 0;

  /// Every rank's (color, key) by `start`, hence uncounted; `group_of` finds the own group in it.
  std::vector<std::int32_t> exchange_colors(int color, int key);

 private:
  Pending checked(const Request& request);
};

/// The ranks with the color of `rank`, ordered by (key, rank). `colors` holds (color, key) of every rank.
std::vector<int> group_of(const std::vector<std::int32_t>& colors, int rank);

}  // namespace annulus
