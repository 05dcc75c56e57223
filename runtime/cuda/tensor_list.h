#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/core/error.h"
#include "runtime/cuda/pack.h"

namespace annulus {

/// So many tensors fit what a kernel takes by value: 4 KiB.
template <class Part>
inline constexpr std::size_t kMostListed = 4000 / (sizeof(Part) + 16);

/// Tensors of one launch, of any sizes, cut into chunks that the blocks take in turn. `Part` is what a kernel knows of
/// a tensor, and by kPack how many of its elements it takes at a time.
template <class Part, std::size_t most = kMostListed<Part>>
class TensorList {
 public:
  static constexpr std::size_t kMost = most;

  /// Throws DeviceError where the tensors have too many elements for one launch.
  void append(const Part& part, std::int64_t elements, bool packed) {
    entries_[size_++] = {part, elements, static_cast<std::int32_t>(chunks_), packed};
    chunks_ += divide_up(elements, kChunk);
    if (chunks_ > 0x7FFFFFFF) throw DeviceError("a list of tensors of " + std::to_string(chunks_) + " chunks");
  }
  std::int64_t chunks() const { return chunks_; }

  /// The block's share of the chunks: `visit(part, Width<N>(), i)` is called for N of its tensor's elements from i on.
  template <class Block, class Visit>
  ANNULUS_BODY void walk_chunks(Block& block, std::int64_t blocks, const Visit& visit) const {
    int at = 0;
    for (std::int64_t chunk = block.index(); chunk < chunks_; chunk += blocks) {
      while (at + 1 < size_ && entries_[at + 1].first_chunk <= chunk) ++at;
      const Entry& entry = entries_[at];
      const std::int64_t begin = (chunk - entry.first_chunk) * kChunk, left = entry.elements - begin;
      walk<Part::kPack>(block, left < kChunk ? left : kChunk, entry.packed,
                        [&](auto width, std::int64_t i) { visit(entry.part, width, begin + i); });
    }
  }

 private:
  static constexpr std::int64_t kChunk = 4096;

  struct Entry {
    Part part;
    std::int64_t elements;
    std::int32_t first_chunk;
    bool packed;
  };
  static_assert(sizeof(Entry) == sizeof(Part) + 16);

  Entry entries_[most] = {};
  std::int64_t chunks_ = 0;
  int size_ = 0;
};

/// `tensors` tensors in as few lists as hold them: `append(list, i)` puts the i-th on its list.
template <class List, class Append>
std::vector<List> lists_of(std::size_t tensors, const Append& append) {
  std::vector<List> lists((tensors + List::kMost - 1) / List::kMost);
  for (std::size_t i = 0; i < tensors; ++i) append(lists[i / List::kMost], i);
  return lists;
}

}  // namespace annulus
