#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "collectives/progress.h"
#include "collectives/request.h"

namespace annulus {

/// Messages of one transfer that complete together.
class MessageExchange {
 public:
  virtual ~MessageExchange() = default;
  virtual void send(const std::byte* buffer, std::int64_t count, int peer, int tag) = 0;
  virtual void receive(std::byte* buffer, std::int64_t count, int peer, int tag) = 0;
  /// Whether all are complete. Never blocks.
  virtual bool test() = 0;
};

/// Scratch that is kept from one transfer to the next, since fresh pages are dear.
using ScratchPool = std::vector<std::vector<std::byte>>;

struct MessageSizes {
  std::int64_t small_bytes;    ///< an all-reduce up to this size is one exchange of everything
  std::int64_t scratch_bytes;  ///< of each of the two segments under way
};

constexpr int kTagsOfReduction = 4;  // two segments under way, two stages each

/// all_reduce, reduce and reduce_scatter by messages. Rank i owns slice i of the tensor: it receives that slice from
/// everyone, reduces in rank order, and for all_reduce and reduce sends the result on. Slices go in segments, two under
/// way at a time, so that scratch is bounded. A small all_reduce is one exchange: everyone owns everything.
class MessageReduction final : public Operation {
 public:
  /// Uses the tags `first_tag` to `first_tag + kTagsOfReduction - 1`, and one exchange for each segment under way.
  MessageReduction(const Request& request, int rank, int size, const MessageSizes& sizes, int first_tag,
                   std::shared_ptr<ScratchPool> pool, std::unique_ptr<MessageExchange> even,
                   std::unique_ptr<MessageExchange> odd);
  MessageReduction(const MessageReduction&) = delete;
  MessageReduction& operator=(const MessageReduction&) = delete;
  ~MessageReduction() override;

  bool advance() override;
  Transport transport() const override { return Transport::messages; }

 private:
  enum class Stage : std::uint8_t { idle, gathering, spreading };
  struct Lane {
    std::unique_ptr<MessageExchange> exchange;
    std::int64_t segment;
    int tag;
    Stage stage;
    std::vector<std::byte> scratch;
  };
  struct Range {
    std::int64_t begin;
    std::int64_t count;
  };

  std::int64_t slice_begin(int rank) const;
  Range range(int rank, std::int64_t segment) const;
  const std::byte* sent(const Range& at) const;
  std::byte* received(const Range& at) const;
  std::byte* scratch_of(Lane& lane, int rank, std::int64_t count) const;
  bool keeps_result() const;

  bool advance(Lane& lane);
  void gather(Lane& lane);
  void reserve_scratch(Lane& lane, std::int64_t bytes);
  void reduce(Lane& lane);
  void spread(Lane& lane);

  const Request request_;
  const int rank_;
  const int size_;
  const std::shared_ptr<ScratchPool> pool_;
  bool one_exchange_ = false;
  std::int64_t segment_ = 0;  // elements
  std::int64_t longest_ = 0;  // elements of the longest slice
  std::vector<Lane> lanes_;
};

}  // namespace annulus
