#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

#include "runtime/core/dtype.h"
#include "runtime/core/stream.h"

namespace annulus {

enum class Reduction : std::uint8_t { sum, max };

enum class CollectiveKind : std::uint8_t {
  all_reduce,
  all_gather,
  reduce_scatter,
  all_to_all,
  broadcast,
  gather,
  scatter,
  reduce,
  send,
  recv,
  shift,
};

inline constexpr std::array kCollectiveKinds = {
    CollectiveKind::all_reduce, CollectiveKind::all_gather, CollectiveKind::reduce_scatter, CollectiveKind::all_to_all,
    CollectiveKind::broadcast,  CollectiveKind::gather,     CollectiveKind::scatter,        CollectiveKind::reduce,
    CollectiveKind::send,       CollectiveKind::recv,       CollectiveKind::shift};

/// How the bytes of a transfer travel.
enum class Transport : std::uint8_t {
  direct,        ///< ranks read and write each other's buffers
  slots,         ///< through slots of memory that the ranks of a host share
  messages,      ///< between any two ranks, each for itself
  hierarchical,  ///< shared memory within hosts, messages between them
  nccl,          ///< between GPUs, as NCCL sees fit
};
inline constexpr std::array kTransports = {Transport::direct, Transport::slots, Transport::messages,
                                           Transport::hierarchical, Transport::nccl};

std::string_view name_of(CollectiveKind kind);
std::string_view name_of(Reduction reduction);
std::string_view name_of(Transport transport);

/// A transfer under way. Destroying an unfinished one is an error of the caller's.
class Transfer {
 public:
  virtual ~Transfer() = default;
  /// Moves the transfer on and says whether it is complete. Never blocks. Throws CollectiveError.
  virtual bool test() = 0;
  /// How it has travelled; of a complete transfer.
  virtual Transport transport() const = 0;
};

/// How a collective of a group that has a hierarchy travels: `messages` or `hierarchical`. The same on all ranks.
using TransportChoice = std::function<Transport(CollectiveKind kind, int ranks, int hosts, std::int64_t payload_bytes)>;

/// Memory for an arena that the ranks of one host reach directly, zeroed; null where there is none. Collective.
using SharedAllocator = std::function<std::shared_ptr<std::byte>(std::int64_t bytes)>;

/// What a communicator has really been asked to do: the source of every *measured* count.
struct CommunicatorCounters {
  std::int64_t calls = 0;
  std::int64_t payload_bytes = 0;  ///< bytes of the full tensor M per call (NCCL-tests' "size"); of the message for p2p
};

/// An ordered group of ranks that exchange buffers of the device's memory.
///
/// Every call is collective over the group, non-blocking, and started in the same order on all of its ranks. Buffers
/// stay valid, and are touched by nobody else, until `test()` of the transfer returns true. One thread at a time uses a
/// world of communicators. `count` is in elements; all types are carried, of any count (0 included). Results of a
/// reduction are the same bits on every rank and in every run; halves are summed as f32 and rounded once (by every
/// stage of a hierarchy). A test of any transfer moves all transfers of the rank on, so ranks may wait for theirs in
/// different orders. Overlapping buffers are refused, but for the forms in place: `send == receive` in all_reduce and
/// at the root of a reduce; `send` as part rank() of `receive` in all_gather and at the root of a gather; `receive` as
/// part rank() of `send` in reduce_scatter and at the root of a scatter.
class Communicator {
 public:
  using Pending = std::unique_ptr<Transfer>;
  virtual ~Communicator() = default;

  virtual int size() const = 0;
  virtual int rank() const = 0;

  virtual Pending all_reduce(const void* send, void* receive, std::int64_t count, DType dtype, Reduction reduction) = 0;
  /// Every rank gives `count` elements; `receive` holds size() * count, in rank order.
  virtual Pending all_gather(const void* send, void* receive, std::int64_t count, DType dtype) = 0;
  /// Every rank gives size() * count elements and receives part `rank()` of the reduction, `count` elements.
  virtual Pending reduce_scatter(const void* send, void* receive, std::int64_t count, DType dtype,
                                 Reduction reduction) = 0;
  /// Part i of `send` (count elements) goes to rank i; part i of `receive` comes from rank i.
  virtual Pending all_to_all(const void* send, void* receive, std::int64_t count, DType dtype) = 0;
  virtual Pending broadcast(void* buffer, std::int64_t count, DType dtype, int root) = 0;
  /// `receive` (size() * count elements) is used on the root alone.
  virtual Pending gather(const void* send, void* receive, std::int64_t count, DType dtype, int root) = 0;
  /// `send` (size() * count elements) is used on the root alone.
  virtual Pending scatter(const void* send, void* receive, std::int64_t count, DType dtype, int root) = 0;
  /// `receive` is used on the root alone.
  virtual Pending reduce(const void* send, void* receive, std::int64_t count, DType dtype, Reduction reduction,
                         int root) = 0;
  /// Messages between two ranks arrive in the order in which they were sent.
  virtual Pending send(const void* buffer, std::int64_t count, DType dtype, int peer) = 0;
  virtual Pending recv(void* buffer, std::int64_t count, DType dtype, int peer) = 0;
  /// A ring hop: sends to rank() + distance and receives from rank() - distance, modulo size().
  virtual Pending shift(const void* send, void* receive, std::int64_t count, DType dtype, int distance) = 0;

  /// On how many hosts the ranks are.
  virtual int hosts() const { return 1; }
  /// Whether all-reduce, all-gather and reduce-scatter can be hierarchical.
  virtual bool has_hierarchy() const { return false; }
  /// For this communicator and all that are, or were, split from the same world. Without a choice, whatever can be
  /// hierarchical is.
  virtual void choose_transports(TransportChoice) {}

  /// Where buffers lie in a device's memory: what is started from now on is put on `stream`, behind what is there, and
  /// is complete for the host once it has been; the caller waits for the stream. Null: transfers are waited for again.
  virtual void use_stream(Stream* stream);
  /// Throws CollectiveError where the group has failed since it was last asked for anything.
  virtual void check_health() {}

  /// Memory of this rank that the others of its host reach: transfers between such memory need no copies on the way.
  /// Zeroed. Null, on all ranks, where there is no room, or nobody to share with. The last owner lets it go, when no
  /// transfer uses it any more. Collective over this communicator, blocking.
  virtual std::shared_ptr<std::byte> allocate_shared(std::int64_t bytes);

  /// The ranks of one `color`, ordered by `key`. Collective over this communicator, blocking.
  virtual std::unique_ptr<Communicator> split(int color, int key) = 0;

  /// Of all kinds together, and of one.
  CommunicatorCounters counters() const;
  const CommunicatorCounters& counters(CollectiveKind kind) const { return counters_[static_cast<std::size_t>(kind)]; }

 protected:
  std::array<CommunicatorCounters, kCollectiveKinds.size()> counters_;  ///< by kind
};

/// Runs a transfer to its end, giving the core away between tests.
void wait(Communicator::Pending transfer);

}  // namespace annulus
