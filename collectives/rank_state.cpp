#include "collectives/rank_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

namespace annulus {
namespace {

struct Head {
  std::uint64_t sequence;
  double seconds;
  double deadline_seconds;
  std::uint64_t busy;
};
static_assert(std::is_trivially_copyable_v<Head>);

double overtime(const RankState& state) {
  return state.present && state.busy ? state.seconds - state.deadline_seconds : -1;
}

}  // namespace

std::string encoded(const RankState& state) {
  const Head head{state.sequence, state.seconds, state.deadline_seconds, state.busy ? 1U : 0U};
  std::string bytes(sizeof(Head), '\0');
  std::memcpy(bytes.data(), &head, sizeof(Head));
  return bytes + state.what;
}

std::optional<RankState> decoded(std::string_view bytes) {
  if (bytes.size() < sizeof(Head)) return std::nullopt;
  Head head{};
  std::memcpy(&head, bytes.data(), sizeof(Head));
  return RankState{head.sequence, head.busy != 0,        true,
                   head.seconds,  head.deadline_seconds, std::string(bytes.substr(sizeof(Head)))};
}

std::string describe(const RankState& state) {
  if (!state.present) return "finished";
  if (state.sequence == 0 && !state.busy) return "before its first operation";
  return fmt::format("{} {} (operation {}) for {:.1f} s", state.busy ? "in" : "done with", state.what, state.sequence,
                     state.seconds);
}

std::optional<int> overdue_rank(const std::vector<RankState>& states) {
  const auto worst = std::max_element(states.begin(), states.end(), [](const RankState& one, const RankState& other) {
    return overtime(one) < overtime(other);
  });
  if (worst == states.end() || overtime(*worst) < 0) return std::nullopt;
  return static_cast<int>(worst - states.begin());
}

std::string explain_hang(const std::vector<RankState>& states, int overdue) {
  std::uint64_t furthest = 0;
  for (const RankState& state : states) furthest = std::max(furthest, state.sequence);
  const RankState& hanging = states[overdue];
  std::string text =
      fmt::format("{} (operation {}) has not ended on rank {} after {:.1f} s, its deadline being {:.1f} s; ",
                  hanging.what, hanging.sequence, overdue, hanging.seconds, hanging.deadline_seconds);
  std::string late;
  int others = 0;
  for (int rank = 0; rank < static_cast<int>(states.size()); ++rank) {
    if (states[rank].sequence >= furthest || !states[rank].present) continue;
    if (++others <= 8) late += fmt::format("{}rank {} {}", late.empty() ? "" : ", ", rank, describe(states[rank]));
  }
  if (others > 8) late += fmt::format(" and {} more", others - 8);
  return text + (late.empty() ? fmt::format("all ranks have reached operation {}, so none is late", furthest)
                              : fmt::format("late: {}", late));
}

}  // namespace annulus
