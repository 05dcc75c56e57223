#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "collectives/progress.h"
#include "collectives/request.h"

namespace annulus {

/// Memory that the ranks of a group share on one host: for each rank two slots of `slot_bytes`, and the numbers of
/// rounds that it has filled and drained. A round is: every rank fills its slot, and all read from them.
class SharedWindow {
 public:
  static constexpr int kSlots = 2;

  /// A new window, its pages already taken, and a name under which others can open it. Null where there is no room.
  static std::unique_ptr<SharedWindow> create(int ranks, std::int64_t slot_bytes, std::string& name);
  /// Null where the name is another host's.
  static std::unique_ptr<SharedWindow> open(const std::string& name, int ranks, std::int64_t slot_bytes);
  /// Takes the name away; the memory goes with its last user.
  static void unlink(const std::string& name);

  SharedWindow(const SharedWindow&) = delete;
  SharedWindow& operator=(const SharedWindow&) = delete;
  ~SharedWindow();

  int ranks() const { return ranks_; }
  std::int64_t slot_bytes() const { return slot_bytes_; }
  std::atomic<std::uint64_t>& filled(int rank) const { return counters_[2 * rank].rounds; }
  std::atomic<std::uint64_t>& drained(int rank) const { return counters_[2 * rank + 1].rounds; }
  std::byte* slot(int rank, std::uint64_t round) const {
    return slots_ + (rank * kSlots + static_cast<std::int64_t>(round % kSlots)) * slot_bytes_;
  }

 private:
  struct alignas(64) Counter {
    std::atomic<std::uint64_t> rounds;
  };
  static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

  static std::unique_ptr<SharedWindow> map(int file, int ranks, std::int64_t slot_bytes);
  static std::int64_t header_bytes(int ranks);
  static std::int64_t total_bytes(int ranks, std::int64_t slot_bytes);
  SharedWindow(std::byte* memory, int ranks, std::int64_t slot_bytes);

  std::byte* memory_;
  int ranks_;
  std::int64_t slot_bytes_;
  Counter* counters_;
  std::byte* slots_;
};

/// The transfers of one rank through a window. All ranks of the group start the same ones in the same order.
class WindowQueue {
 public:
  WindowQueue(std::shared_ptr<SharedWindow> window, int rank) : window_(std::move(window)), rank_(rank) {}

  /// Any collective; not send or recv.
  std::unique_ptr<Operation> start(const Request& request);

 private:
  std::shared_ptr<SharedWindow> window_;
  int rank_;
  std::uint64_t next_round_ = 0;
};

}  // namespace annulus
