#include "collectives/message_reduction.h"

#include <algorithm>
#include <utility>

#include "collectives/reduce.h"

namespace annulus {

MessageReduction::MessageReduction(const Request& request, int rank, int size, const MessageSizes& sizes, int first_tag,
                                   std::shared_ptr<ScratchPool> pool, std::unique_ptr<MessageExchange> even,
                                   std::unique_ptr<MessageExchange> odd)
    : request_(request), rank_(rank), size_(size), pool_(std::move(pool)) {
  one_exchange_ = request.kind == CollectiveKind::all_reduce &&
                  request.bytes() * (size - 1) <= std::min(sizes.small_bytes, sizes.scratch_bytes);
  segment_ = std::max<std::int64_t>(sizes.scratch_bytes / size_of(request.dtype) / (size - 1), 1);
  for (int i = 0; i < size; ++i) longest_ = std::max(longest_, slice_begin(i + 1) - slice_begin(i));
  if (one_exchange_) longest_ = request.count;
  lanes_.push_back({std::move(even), 0, first_tag, Stage::idle, {}});
  lanes_.push_back({std::move(odd), 1, first_tag + 2, Stage::idle, {}});
}

MessageReduction::~MessageReduction() {
  for (Lane& lane : lanes_) {
    if (!lane.scratch.empty()) pool_->push_back(std::move(lane.scratch));
  }
}

bool MessageReduction::advance() {
  bool complete = true;
  for (Lane& lane : lanes_) {
    if (!advance(lane)) complete = false;
  }
  return complete;
}

std::int64_t MessageReduction::slice_begin(int rank) const {
  if (request_.kind == CollectiveKind::reduce_scatter) return request_.count * rank;
  return request_.count / size_ * rank + std::min<std::int64_t>(rank, request_.count % size_);
}

/// The elements of `rank`'s slice that belong to a segment.
MessageReduction::Range MessageReduction::range(int rank, std::int64_t segment) const {
  const std::int64_t slice = one_exchange_ ? 0 : slice_begin(rank);
  const std::int64_t end = one_exchange_ ? request_.count : slice_begin(rank + 1);
  const std::int64_t begin = std::min(slice + segment * segment_, end);
  return {begin, std::min(segment_, end - begin)};
}

const std::byte* MessageReduction::sent(const Range& at) const {
  return static_cast<const std::byte*>(request_.send) + at.begin * size_of(request_.dtype);
}

/// Where the result of this rank's slice, or in an all_reduce and at the root of any slice, goes.
std::byte* MessageReduction::received(const Range& at) const {
  const bool scattered = request_.kind == CollectiveKind::reduce_scatter;
  const std::int64_t begin = scattered ? at.begin - slice_begin(rank_) : at.begin;
  return static_cast<std::byte*>(request_.receive) + begin * size_of(request_.dtype);
}

std::byte* MessageReduction::scratch_of(Lane& lane, int rank, std::int64_t count) const {
  const std::int64_t place = rank < rank_ ? rank : rank - 1;
  return lane.scratch.data() + place * count * size_of(request_.dtype);
}

bool MessageReduction::keeps_result() const {
  return request_.kind != CollectiveKind::reduce || rank_ == request_.peer;
}

bool MessageReduction::advance(Lane& lane) {
  while (true) {
    if (lane.stage == Stage::idle) {
      if (lane.segment * segment_ >= longest_) return true;
      gather(lane);
      lane.stage = Stage::gathering;
    }
    if (!lane.exchange->test()) return false;
    if (lane.stage == Stage::gathering) {
      reduce(lane);
      spread(lane);
      lane.stage = Stage::spreading;
    } else {
      lane.stage = Stage::idle;
      lane.segment += 2;
    }
  }
}

void MessageReduction::gather(Lane& lane) {
  const Range own = range(rank_, lane.segment);
  reserve_scratch(lane, own.count * (size_ - 1) * size_of(request_.dtype));
  for (int step = 1; step < size_; ++step) {
    const int peer = (rank_ + step) % size_;
    const Range theirs = range(peer, lane.segment);
    if (own.count > 0) lane.exchange->receive(scratch_of(lane, peer, own.count), own.count, peer, lane.tag);
    if (theirs.count > 0) lane.exchange->send(sent(theirs), theirs.count, peer, lane.tag);
  }
}

void MessageReduction::reserve_scratch(Lane& lane, std::int64_t bytes) {
  if (lane.scratch.empty() && !pool_->empty()) {
    lane.scratch = std::move(pool_->back());
    pool_->pop_back();
  }
  if (static_cast<std::int64_t>(lane.scratch.size()) < bytes) lane.scratch.resize(static_cast<std::size_t>(bytes));
}

void MessageReduction::reduce(Lane& lane) {
  const Range own = range(rank_, lane.segment);
  std::vector<const std::byte*> inputs;
  for (int rank = 0; rank < size_; ++rank) {
    inputs.push_back(rank == rank_ ? sent(own) : scratch_of(lane, rank, own.count));
  }
  // A rank that is not the root has no buffer for the result: it is sent from the scratch.
  std::byte* result = keeps_result() ? received(own) : lane.scratch.data();
  reduce_in_order(inputs, {&result, 1}, own.count, request_.dtype, request_.reduction);
}

void MessageReduction::spread(Lane& lane) {
  if (request_.kind == CollectiveKind::reduce_scatter || one_exchange_) return;
  const Range own = range(rank_, lane.segment);
  const std::byte* result = keeps_result() ? received(own) : lane.scratch.data();
  for (int step = 1; step < size_; ++step) {
    const int peer = (rank_ + step) % size_;
    const Range theirs = range(peer, lane.segment);
    const bool to_peer = request_.kind == CollectiveKind::all_reduce || peer == request_.peer;
    if (keeps_result() && theirs.count > 0) {
      lane.exchange->receive(received(theirs), theirs.count, peer, lane.tag + 1);
    }
    if (to_peer && own.count > 0) lane.exchange->send(result, own.count, peer, lane.tag + 1);
  }
}

}  // namespace annulus
