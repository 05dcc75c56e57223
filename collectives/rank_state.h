#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace annulus {

/// What a rank is at, as its heartbeats tell it.
struct RankState {
  std::uint64_t sequence = 0;  ///< of the operation under way or, where idle, of the last one; 0 before the first
  bool busy = false;
  bool present = true;  ///< false once it has said goodbye
  double seconds = 0;   ///< since the operation began, or ended
  double deadline_seconds = 0;
  std::string what;  ///< the operation's name and axes
  int lane = 0;      ///< of transfers beside each other, the one in which the operation is, from 1; 0: there are none
  std::vector<std::uint64_t> begun = {};  ///< by such lane: the newest operation that has begun
};

/// The bytes of a heartbeat, and back; nothing where the bytes are not a heartbeat's.
std::string encoded(const RankState& state);
std::optional<RankState> decoded(std::string_view bytes);

/// `in all_reduce layers.3.mlp over tp (operation 58) for 61.0 s`
std::string describe(const RankState& state);

/// Whether its operation is past its deadline.
bool is_overdue(const RankState& state);

/// The rank that is furthest past its deadline, or none.
std::optional<int> overdue_rank(const std::vector<RankState>& states);

/// Names the operation in which `overdue` hangs and the ranks that others wait for: those that have not reached the
/// largest sequence number of all or, where it hangs in a lane, have not begun the operation there.
std::string explain_hang(const std::vector<RankState>& states, int overdue);

}  // namespace annulus
