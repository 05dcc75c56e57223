#include "model/analytic/gradients.h"

#include <array>
#include <map>
#include <tuple>
#include <utility>

#include "model/analytic/parameters.h"

namespace annulus {
namespace {

/// The ranks of tp that make shares of an item's gradient: those that hold the same elements and see other heads, or
/// other rows.
TpPart reduced_part(const Symbols& s, ParameterSplit split) {
  switch (split) {
    case ParameterSplit::tp:
      return TpPart::none;
    case ParameterSplit::kv:
      return TpPart::tr;
    case ParameterSplit::replicated:
      return s.sequence_parallel ? TpPart::all : TpPart::none;
  }
  return TpPart::none;
}

std::int64_t holders(const Symbols& s, ParameterSplit split) {
  return split == ParameterSplit::tp ? s.T : split == ParameterSplit::kv ? s.tk() : 1;
}

}  // namespace

GroupAxes group_axes(const Symbols& s, std::int64_t dp, std::int64_t cp, TpPart part) {
  const std::int64_t tp = part == TpPart::none ? 1 : part == TpPart::tk ? s.tk() : part == TpPart::tr ? s.tr() : s.T;
  const char* tp_name = tp == s.T ? "tp" : part == TpPart::tk ? "tk" : "tr";
  GroupAxes axes;
  for (const auto& [name, size] :
       std::array<std::pair<const char*, std::int64_t>, 3>{{{"dp", dp}, {"cp", cp}, {tp_name, tp}}}) {
    if (size == 1) continue;
    axes.name += (axes.name.empty() ? "" : "+") + std::string(name);
    axes.size *= static_cast<int>(size);
  }
  return axes;
}

std::vector<GradientGroup> gradient_groups(const Symbols& symbols) {
  std::map<std::tuple<std::string, std::int64_t, bool>, GradientGroup> groups;
  for (const ParameterItem& item : parameter_items(symbols)) {
    const GroupAxes axes = group_axes(symbols, symbols.W, symbols.R, reduced_part(symbols, item.split));
    const std::int64_t ranks = symbols.shards_optimizer() ? holders(symbols, item.split) : 1;
    GradientGroup& group = groups[{axes.name, ranks, symbols.shards_optimizer() && item.decays}];
    group.reduced = axes;
    group.elements += elements_on_rank(item, symbols);
  }
  std::vector<GradientGroup> all;
  for (const auto& [key, group] : groups) all.push_back(group);
  return all;
}

std::int64_t optimizer_elements_on_rank(const Symbols& symbols) {
  if (!symbols.shards_optimizer()) return parameters_on_rank(symbols);
  std::int64_t sum = 0;
  for (const GradientGroup& group : gradient_groups(symbols)) sum += group.part();
  return sum;
}

}  // namespace annulus
