#pragma once

#include <vector>

#include "runtime/execute/carrier.h"
#include "runtime/execute/streams.h"

namespace annulus {

/// How far a device with streams has come, in words that it writes to the host's memory: for each lane of transfers the
/// numbers of the last that has begun, and of the last that has ended. A number is one more than the op's sequence, in
/// the order that all ranks share; word 0 counts the ops of segments that are over, so that replays tell new numbers.
class ProgressWords {
 public:
  ProgressWords(Streams& streams, const std::vector<PreparedOp>& ops, const std::vector<SegmentSpan>& segments,
                int lane_count);

  void tell_begun(Stream* stream, int op) { tell(stream, op, begun_word(lane_of(op))); }
  void tell_ended(Stream* stream, int op) { tell(stream, op, begun_word(lane_of(op)) + 1); }
  /// Behind all of a segment.
  void advance(Stream* stream, const SegmentSpan& segment);

  /// From any thread, within a step: the transfer that is under way and comes first, or what is between transfers.
  Activity activity() const;

 private:
  int lane_of(int op) const { return ops_[static_cast<std::size_t>(op)].lane; }
  static int begun_word(int lane) { return 2 * lane - 1; }
  std::uint64_t load(int word) const;
  void tell(Stream* stream, int op, int word);
  /// The op that has a number.
  const PreparedOp& op_of(std::uint64_t number) const;

  Streams& streams_;
  const std::vector<PreparedOp>& ops_;
  const std::vector<SegmentSpan>& segments_;
  const int lane_count_;
  std::uint64_t* const words_;
  std::vector<int> first_of_segment_;  // by op
  std::uint64_t per_step_ = 0;         // numbers
};

}  // namespace annulus
