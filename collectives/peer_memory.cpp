#include "collectives/peer_memory.h"

#include <functional>
#include <utility>

namespace annulus {

std::int64_t PeerMemory::add(std::byte* own, std::int64_t bytes, std::vector<std::byte*> of_ranks) {
  regions_.push_back({own, bytes, std::move(of_ranks)});
  ++alive_;
  return static_cast<std::int64_t>(regions_.size()) - 1;
}

void PeerMemory::remove(std::int64_t region) {
  regions_[static_cast<std::size_t>(region)] = {};
  --alive_;
}

PeerPlace PeerMemory::place_of(const void* buffer, std::int64_t bytes) const {
  const auto* begin = static_cast<const std::byte*>(buffer);
  const std::less_equal<const std::byte*> not_behind;
  for (std::size_t region = 0; region < regions_.size(); ++region) {
    const auto& [own, size, of_ranks] = regions_[region];
    if (bytes > 0 && size > 0 && not_behind(own, begin) && not_behind(begin + bytes, own + size))
      return {static_cast<std::int64_t>(region), begin - own};
  }
  return {};
}

std::byte* PeerMemory::address(int rank, const PeerPlace& place) const {
  if (place.region < 0 || place.region >= static_cast<std::int64_t>(regions_.size())) return nullptr;
  const std::vector<std::byte*>& of_ranks = regions_[static_cast<std::size_t>(place.region)].of_ranks;
  if (of_ranks.empty()) return nullptr;
  std::byte* base = of_ranks[static_cast<std::size_t>(rank)];
  return base == nullptr ? nullptr : base + place.offset;
}

}  // namespace annulus
