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
  std::int32_t lane;
  std::uint16_t lanes, busy;
};
static_assert(std::is_trivially_copyable_v<Head>);

double overtime(const RankState& state) {
  return state.present && state.busy ? state.seconds - state.deadline_seconds : -1;
}

}  // namespace

std::string encoded(const RankState& state) {
  const Head head{.sequence = state.sequence,
                  .seconds = state.seconds,
                  .deadline_seconds = state.deadline_seconds,
                  .lane = state.lane,
                  .lanes = static_cast<std::uint16_t>(state.begun.size()),
                  .busy = state.busy ? std::uint16_t{1} : std::uint16_t{0}};
  std::string bytes(sizeof(Head) + state.begun.size() * sizeof(std::uint64_t), '\0');
  std::memcpy(bytes.data(), &head, sizeof(Head));
  if (!state.begun.empty())
    std::memcpy(bytes.data() + sizeof(Head), state.begun.data(), state.begun.size() * sizeof(std::uint64_t));
  return bytes + state.what;
}

std::optional<RankState> decoded(std::string_view bytes) {
  if (bytes.size() < sizeof(Head)) return std::nullopt;
  Head head{};
  std::memcpy(&head, bytes.data(), sizeof(Head));
  bytes.remove_prefix(sizeof(Head));
  const std::size_t begun_bytes = head.lanes * sizeof(std::uint64_t);
  if (bytes.size() < begun_bytes) return std::nullopt;
  RankState state{head.sequence, head.busy != 0, true, head.seconds, head.deadline_seconds, "", head.lane};
  state.begun.resize(head.lanes);
  if (begun_bytes > 0) std::memcpy(state.begun.data(), bytes.data(), begun_bytes);
  state.what = bytes.substr(begun_bytes);
  return state;
}

std::string describe(const RankState& state) {
  if (!state.present) return "finished";
  if (state.sequence == 0 && !state.busy) return "before its first operation";
  return fmt::format("{} {} (operation {}) for {:.1f} s", state.busy ? "in" : "done with", state.what, state.sequence,
                     state.seconds);
}

bool is_overdue(const RankState& state) { return overtime(state) >= 0; }

std::optional<int> overdue_rank(const std::vector<RankState>& states) {
  const auto worst = std::max_element(states.begin(), states.end(), [](const RankState& one, const RankState& other) {
    return overtime(one) < overtime(other);
  });
  if (worst == states.end() || !is_overdue(*worst)) return std::nullopt;
  return static_cast<int>(worst - states.begin());
}

std::string explain_hang(const std::vector<RankState>& states, int overdue) {
  const RankState& hanging = states[overdue];
  const auto progress = [lane = static_cast<std::size_t>(hanging.lane)](const RankState& state) {
    if (lane == 0) return state.sequence;
    return lane <= state.begun.size() ? state.begun[lane - 1] : 0;
  };
  std::uint64_t furthest = hanging.sequence;
  if (hanging.lane == 0)
    for (const RankState& state : states) furthest = std::max(furthest, state.sequence);
  std::string text =
      fmt::format("{} (operation {}) has not ended on rank {} after {:.1f} s, its deadline being {:.1f} s; ",
                  hanging.what, hanging.sequence, overdue, hanging.seconds, hanging.deadline_seconds);
  std::string late;
  int others = 0;
  for (int rank = 0; rank < static_cast<int>(states.size()); ++rank) {
    if (progress(states[rank]) >= furthest || !states[rank].present) continue;
    if (++others <= 8) late += fmt::format("{}rank {} {}", late.empty() ? "" : ", ", rank, describe(states[rank]));
  }
  if (others > 8) late += fmt::format(" and {} more", others - 8);
  return text + (late.empty() ? fmt::format("all ranks have reached operation {}, so none is late", furthest)
                              : fmt::format("late: {}", late));
}

}  // namespace annulus
