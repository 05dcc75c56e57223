#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "collectives/peer_memory.h"
#include "collectives/progress.h"
#include "collectives/request.h"
#include "collectives/shared_segment.h"

namespace annulus {

/// Room for what ranks tell each other of a direct transfer.
inline constexpr std::int64_t kLeastSlotBytes = 256;

/// A segment as the ranks of a group use it: for each rank two slots of `slot_bytes`, and the numbers of rounds that it
/// has filled and drained. A round is: every rank fills its slot, and all read from them.
class SharedWindow {
 public:
  static constexpr int kSlots = 2;
  static std::int64_t total_bytes(int ranks, std::int64_t slot_bytes);

  /// Of a zeroed segment of `total_bytes`, or of one that another rank has made of such.
  SharedWindow(std::shared_ptr<SharedSegment> segment, int ranks, std::int64_t slot_bytes);

  int ranks() const { return ranks_; }
  std::int64_t slot_bytes() const { return slot_bytes_; }
  std::atomic<std::uint64_t>& filled(int rank) const { return counters_[2 * rank].rounds; }
  std::atomic<std::uint64_t>& drained(int rank) const { return counters_[2 * rank + 1].rounds; }
  std::byte* slot(int rank, std::uint64_t round) const {
    return slots_ + (rank * kSlots + static_cast<std::int64_t>(round % kSlots)) * slot_bytes_;
  }

  /// Whether `rank` may fill its slot of a round: its turn, and nobody reads what the slot held before.
  bool may_fill(int rank, std::uint64_t round) const;
  /// Whether all slots of a round are filled.
  bool all_filled(std::uint64_t round) const;

 private:
  struct alignas(64) Counter {
    std::atomic<std::uint64_t> rounds;
  };
  static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

  static std::int64_t header_bytes(int ranks);

  std::shared_ptr<SharedSegment> segment_;
  int ranks_;
  std::int64_t slot_bytes_;
  Counter* counters_;
  std::byte* slots_;
};

/// One rank's part in a transfer through a window. Begins with a round of its own, and says how many it has taken.
class WindowOperation : public Operation {
 public:
  virtual std::int64_t rounds() const = 0;
};

/// Through the slots, a chunk at a time.
std::unique_ptr<WindowOperation> through_slots(const SharedWindow& window, const Request& request, int rank,
                                               std::uint64_t first_round);

/// The memory of a group's ranks: `members` are the group's, as `memory` numbers them.
struct GroupMemory {
  std::shared_ptr<const PeerMemory> memory;
  std::vector<int> members;
};

/// In place: a round tells where the buffers are, then whoever tests does pieces of the work. Where what a rank sends,
/// or what others write for it, is in no shared region it does nothing, and `refused` says so, alike on all ranks.
class DirectOperation final : public WindowOperation {
 public:
  DirectOperation(const SharedWindow& window, const GroupMemory& memory, const Request& request, int rank,
                  std::uint64_t round);
  bool advance() override;
  std::int64_t rounds() const override { return 1; }
  Transport transport() const override { return Transport::direct; }
  bool refused() const { return refused_; }

 private:
  struct Post;  // what a rank puts into its slot
  Post& post_of(int rank) const;
  void post();
  void meet();
  bool work();
  std::int64_t pieces(int part) const;

  const SharedWindow& window_;
  const GroupMemory& memory_;
  const Request request_;
  const int rank_;
  const std::uint64_t round_;
  std::int64_t piece_ = 0;  // elements
  bool posted_ = false, refused_ = false;
  std::vector<Request> requests_;  // of all ranks, once they have met
  std::vector<bool> reachable_;    // whether others reach what a rank receives
};

/// The transfers of one rank through a window, one after another. All ranks of the group start the same ones in the
/// same order.
class WindowQueue {
 public:
  WindowQueue(std::unique_ptr<SharedWindow> window, GroupMemory memory, int rank);

  /// Any collective; not send or recv.
  std::unique_ptr<Operation> start(const Request& request);
  /// Whether memory is shared, so that transfers may be direct.
  bool has_memory() const;

 private:
  struct State;
  class Turn;
  std::shared_ptr<State> state_;
};

}  // namespace annulus
