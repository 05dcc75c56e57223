#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace annulus {

/// Where a buffer lies, as other ranks can understand it.
struct PeerPlace {
  std::int64_t region = -1;  ///< -1: in no region, so that nobody else can reach it
  std::int64_t offset = 0;
};

/// The regions of memory that the ranks of a host have mapped of each other. A region has one number on all ranks; its
/// size may differ.
class PeerMemory {
 public:
  /// `of_ranks`: where this process sees each rank's memory of the region, its own included; null where it cannot.
  /// Returns the region's number, the same on all ranks that add theirs in one order.
  std::int64_t add(std::byte* own, std::int64_t bytes, std::vector<std::byte*> of_ranks);
  void remove(std::int64_t region);
  /// Whether any region is there: the same on all ranks.
  bool empty() const { return alive_ == 0; }

  /// Of bytes of this rank's. No bytes lie in any region.
  PeerPlace place_of(const void* buffer, std::int64_t bytes) const;
  /// Where this process sees what `rank` calls `place`; null where it cannot.
  std::byte* address(int rank, const PeerPlace& place) const;

 private:
  struct Region {
    std::byte* own = nullptr;
    std::int64_t bytes = 0;
    std::vector<std::byte*> of_ranks;
  };
  std::vector<Region> regions_;
  int alive_ = 0;
};

}  // namespace annulus
