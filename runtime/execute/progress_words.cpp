#include "runtime/execute/progress_words.h"

#include <algorithm>
#include <atomic>

namespace annulus {

ProgressWords::ProgressWords(Streams& streams, const std::vector<PreparedOp>& ops,
                             const std::vector<SegmentSpan>& segments, int lane_count)
    : streams_(streams),
      ops_(ops),
      segments_(segments),
      lane_count_(lane_count),
      words_(streams.make_words(2 * lane_count - 1)) {
  for (const SegmentSpan& segment : segments_) {
    first_of_segment_.resize(static_cast<std::size_t>(segment.last), segment.first);
    per_step_ += static_cast<std::uint64_t>(segment.repeat * (segment.last - segment.first));
  }
}

std::uint64_t ProgressWords::load(int word) const {
  return std::atomic_ref(words_[word]).load(std::memory_order_acquire);
}

void ProgressWords::tell(Stream* stream, int op, int word) {
  const int place = op - first_of_segment_[static_cast<std::size_t>(op)];
  streams_.tell(stream, words_, word, static_cast<std::uint64_t>(place + 1));
}

void ProgressWords::advance(Stream* stream, const SegmentSpan& segment) {
  streams_.tell(stream, words_, 0, static_cast<std::uint64_t>(segment.last - segment.first));
}

const PreparedOp& ProgressWords::op_of(std::uint64_t number) const {
  std::uint64_t place = (number - 1) % per_step_;
  for (const SegmentSpan& segment : segments_) {
    const auto length = static_cast<std::uint64_t>(segment.last - segment.first);
    const std::uint64_t all = length * static_cast<std::uint64_t>(segment.repeat);
    if (place < all) return ops_[static_cast<std::size_t>(segment.first) + place % length];
    place -= all;
  }
  return ops_.back();  // not reached
}

Activity ProgressWords::activity() const {
  Activity now;
  now.busy = true;
  std::uint64_t first = 0, newest = 0;  // numbers: of the first transfer under way, and of the last that ended
  for (int lane = 1; lane < lane_count_; ++lane) {
    const std::uint64_t ended = load(begun_word(lane) + 1);  // before the other: the lane goes on meanwhile
    const std::uint64_t begun = load(begun_word(lane));
    now.begun.push_back(begun);
    newest = std::max(newest, ended);
    if (begun == ended || (first != 0 && begun > first)) continue;
    first = begun;
    now.lane = lane;
  }
  if (first != 0) {
    const PreparedOp& op = op_of(first);
    now.sequence = first - 1;
    now.what = op.label;
    now.expected_seconds = op.expected_seconds;
    return now;
  }
  // No transfer is under way. Single kernels tell nothing, so the whole step is what may be late.
  now.sequence = std::max(newest, load(0));
  now.what = newest == 0 ? "the ops before the first collective" : "an op behind " + op_of(newest).label;
  for (const SegmentSpan& segment : segments_)
    for (int i = segment.first; i < segment.last; ++i)
      now.expected_seconds += segment.repeat * ops_[static_cast<std::size_t>(i)].expected_seconds;
  return now;
}

}  // namespace annulus
