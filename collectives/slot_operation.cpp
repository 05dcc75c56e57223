#include <algorithm>
#include <vector>

#include "collectives/reduce.h"
#include "collectives/shared_window.h"

namespace annulus {
namespace {

/// Above this an all_reduce goes in two rounds a chunk, slices reduced by their owners and then gathered; below,
/// everyone reduces everything. (2 ranks, 1 MiB: 135 us against 164 us.)
constexpr std::int64_t kOneRoundBytes = 16384;
constexpr int kStepsAtOnce = 32;  // of work in one test of a transfer

class SlotOperation final : public WindowOperation {
 public:
  SlotOperation(const SharedWindow& window, const Request& request, int rank, std::uint64_t first_round)
      : window_(window), request_(request), rank_(rank), size_(window.ranks()), first_(first_round) {
    const std::int64_t element = size_of(request.dtype);
    const std::int64_t chunk = window.slot_bytes() / element;
    by_part_ = request.kind == CollectiveKind::reduce_scatter || request.kind == CollectiveKind::all_to_all ||
               request.kind == CollectiveKind::scatter;
    const bool reduces_whole = request.kind == CollectiveKind::all_reduce || request.kind == CollectiveKind::reduce;
    two_rounds_ = reduces_whole && request.bytes() > kOneRoundBytes;
    length_ = by_part_ ? chunk / size_ : chunk;
    rounds_ = (request.count + length_ - 1) / length_ * (two_rounds_ ? 2 : 1);
  }

  std::int64_t rounds() const override { return rounds_; }
  Transport transport() const override { return Transport::slots; }

  bool advance() override {
    for (int step = 0; step < kStepsAtOnce; ++step) {
      const bool has_filled = fill();
      const bool has_drained = drain();
      if (!has_filled && !has_drained) break;
    }
    return drained_ == rounds_;
  }

 private:
  struct Range {
    std::int64_t begin;
    std::int64_t count;
  };

  bool fill() {
    if (filled_ == rounds_ || (is_second(filled_) && drained_ < filled_)) return false;
    const std::uint64_t round = first_ + filled_;
    if (!window_.may_fill(rank_, round)) return false;
    fill_slot(window_.slot(rank_, round), filled_);
    window_.filled(rank_).store(round + 1, std::memory_order_release);
    ++filled_;
    return true;
  }

  bool drain() {
    const std::uint64_t round = first_ + drained_;
    if (drained_ == filled_ || !window_.all_filled(round)) return false;
    // The sums of a first round go to the slot of the second, out of which nobody may still be reading.
    for (int rank = 0; two_rounds_ && !is_second(drained_) && rank < size_; ++rank)
      if (window_.drained(rank).load(std::memory_order_acquire) < round) return false;
    drain_slots(round, drained_);
    window_.drained(rank_).store(round + 1, std::memory_order_release);
    ++drained_;
    return true;
  }

  bool is_second(std::int64_t index) const { return two_rounds_ && index % 2 == 1; }
  bool is_root() const { return rank_ == request_.peer; }

  /// The elements of the tensor, or of each of its parts, that a round is about.
  Range range(std::int64_t index) const {
    const std::int64_t begin = (two_rounds_ ? index / 2 : index) * length_;
    return {begin, std::min(length_, request_.count - begin)};
  }
  /// The slice of a chunk that `rank` reduces.
  static Range slice(const Range& chunk, int rank, int size) {
    const std::int64_t begin = chunk.count * rank / size;
    return {begin, chunk.count * (rank + 1) / size - begin};
  }
  std::int64_t bytes(std::int64_t count) const { return count * size_of(request_.dtype); }
  const std::byte* sent(std::int64_t part, std::int64_t begin) const { return request_.send_part(part) + bytes(begin); }
  std::byte* received(std::int64_t part, std::int64_t begin) const {
    return request_.receive_part(part) + bytes(begin);
  }

  /// What this rank reduces itself it does not put into its slot, but takes from what it sends.
  void fill_slot(std::byte* slot, std::int64_t index) const {
    const Range at = range(index);
    if (is_second(index)) return;  // the reduced slice is there already
    if (two_rounds_) {
      const Range own = slice(at, rank_, size_);
      const std::int64_t behind = own.begin + own.count;
      copy_bytes(slot, sent(0, at.begin), bytes(own.begin));
      return copy_bytes(slot + bytes(behind), sent(0, at.begin + behind), bytes(at.count - behind));
    }
    if (!by_part_) {
      if (request_.kind == CollectiveKind::broadcast && !is_root()) return;
      return copy_bytes(slot, sent(0, at.begin), bytes(at.count));
    }
    if (request_.kind == CollectiveKind::scatter && !is_root()) return;
    for (int part = 0; part < size_; ++part) {
      if (part == rank_ && request_.kind == CollectiveKind::reduce_scatter) continue;
      copy_bytes(slot + bytes(part * length_), sent(part, at.begin), bytes(at.count));
    }
  }

  void drain_slots(std::uint64_t round, std::int64_t index) {
    const Range at = range(index);
    const auto copy_from = [&](int rank, std::int64_t place, std::byte* target) {
      copy_bytes(target, window_.slot(rank, round) + bytes(place), bytes(at.count));
    };
    switch (request_.kind) {
      case CollectiveKind::all_reduce:
      case CollectiveKind::reduce:
        return drain_reduction(round, index, at);
      case CollectiveKind::reduce_scatter:
        return reduce(round, rank_ * length_, sent(rank_, at.begin), at.count, {received(0, at.begin)});
      case CollectiveKind::gather:
        if (!is_root()) return;
        [[fallthrough]];
      case CollectiveKind::all_gather:
        for (int rank = 0; rank < size_; ++rank) copy_from(rank, 0, received(rank, at.begin));
        return;
      case CollectiveKind::all_to_all:
        for (int rank = 0; rank < size_; ++rank) copy_from(rank, rank_ * length_, received(rank, at.begin));
        return;
      case CollectiveKind::broadcast:
        if (!is_root()) copy_from(request_.peer, 0, received(0, at.begin));
        return;
      case CollectiveKind::scatter:
        return copy_from(request_.peer, rank_ * length_, received(0, at.begin));
      case CollectiveKind::shift:
        return copy_from((rank_ + size_ - request_.peer) % size_, 0, received(0, at.begin));
      case CollectiveKind::send:
      case CollectiveKind::recv:
        throw InternalError("messages do not go through a window");
    }
  }

  void drain_reduction(std::uint64_t round, std::int64_t index, const Range& at) {
    const bool keeps = request_.kind == CollectiveKind::all_reduce || is_root();
    if (!two_rounds_) {
      if (keeps) reduce(round, 0, sent(0, at.begin), at.count, {received(0, at.begin)});
    } else if (is_second(index)) {
      for (int rank = 0; keeps && rank < size_; ++rank) {
        if (rank == rank_) continue;
        const Range part = slice(at, rank, size_);
        copy_bytes(received(0, at.begin + part.begin), window_.slot(rank, round), bytes(part.count));
      }
    } else {
      const Range own = slice(at, rank_, size_);
      std::vector<std::byte*> results = {window_.slot(rank_, round + 1)};
      if (keeps) results.push_back(received(0, at.begin + own.begin));
      reduce(round, own.begin, sent(0, at.begin + own.begin), own.count, results);
    }
  }

  /// Reduces what lies at `place` of the others' slots, and this rank's `own`.
  void reduce(std::uint64_t round, std::int64_t place, const std::byte* own, std::int64_t count,
              const std::vector<std::byte*>& results) {
    inputs_.clear();
    for (int rank = 0; rank < size_; ++rank) {
      inputs_.push_back(rank == rank_ ? own : window_.slot(rank, round) + bytes(place));
    }
    reduce_in_order(inputs_, results, count, request_.dtype, request_.reduction);
  }

  const SharedWindow& window_;
  const Request request_;
  const int rank_;
  const int size_;
  const std::uint64_t first_;  // of this transfer's rounds
  bool by_part_ = false;       // a slot holds a piece for each rank
  bool two_rounds_ = false;
  std::int64_t length_ = 0;  // elements of a chunk, or of each of its pieces
  std::int64_t rounds_ = 0;
  std::int64_t filled_ = 0;
  std::int64_t drained_ = 0;
  std::vector<const std::byte*> inputs_;
};

}  // namespace

std::unique_ptr<WindowOperation> through_slots(const SharedWindow& window, const Request& request, int rank,
                                               std::uint64_t first_round) {
  return std::make_unique<SlotOperation>(window, request, rank, first_round);
}

}  // namespace annulus
