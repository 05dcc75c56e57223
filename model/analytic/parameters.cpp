#include "model/analytic/parameters.h"

#include <string_view>

#include "runtime/core/error.h"

namespace annulus {

std::vector<ParameterItem> parameter_items(const Symbols& s) {
  using enum ParameterSplit;
  const std::int64_t up_features = (s.mlp_products - 1) * s.F;
  const std::int64_t padded_rows = s.padded_vocabulary() - s.V;
  std::vector<ParameterItem> items;
  const auto add = [&](const char* name, std::int64_t elements, ParameterSplit split, std::int64_t padding = 0) {
    const bool decays = std::string_view(name).ends_with("weight") || std::string_view(name).ends_with("embedding");
    if (elements > 0) items.push_back({name, elements, padding, split, decays});
  };
  add("token embedding", s.V * s.D, tp, padded_rows * s.D);
  add("position embedding", s.K * s.D, replicated);
  add("norms", s.L * s.norms * s.norm_vectors * s.D, replicated);
  add("query weight", s.L * s.D * s.A * s.H, tp);
  add("key and value weight", s.L * s.D * 2 * s.G * s.H, kv);
  add("query bias", s.qkv_bias ? s.L * s.A * s.H : 0, tp);
  add("key and value bias", s.qkv_bias ? s.L * 2 * s.G * s.H : 0, kv);
  add("output weight", s.L * s.A * s.H * s.D, tp);
  add("output bias", s.output_bias ? s.L * s.D : 0, replicated);
  add("up weight", s.L * s.D * up_features, tp);
  add("up bias", s.mlp_bias ? s.L * up_features : 0, tp);
  add("down weight", s.L * s.F * s.D, tp);
  add("down bias", s.mlp_bias ? s.L * s.D : 0, replicated);
  add("final norm", s.norm_vectors * s.D, replicated);
  add("head weight", s.tied_head ? 0 : s.V * s.D, tp, padded_rows * s.D);
  add("head bias", s.head_bias ? s.V : 0, tp, padded_rows);
  return items;
}

std::int64_t parameters(const Symbols& symbols) {
  std::int64_t sum = 0;
  for (const ParameterItem& item : parameter_items(symbols)) sum += item.elements;
  return sum;
}

std::int64_t parameters_in_products(const Symbols& symbols) {
  const std::int64_t tables = (symbols.tied_head ? 0 : symbols.V) + symbols.K;
  return parameters(symbols) - tables * symbols.D;
}

std::int64_t elements_on_rank(const ParameterItem& item, const Symbols& symbols) {
  const std::int64_t elements = item.elements + item.padding;
  switch (item.split) {
    case ParameterSplit::tp:
      return elements / symbols.T;
    case ParameterSplit::kv:
      return elements / symbols.tk();
    case ParameterSplit::replicated:
      return elements;
  }
  throw InternalError("unknown split of a parameter");
}

std::int64_t parameters_on_rank(const Symbols& symbols) {
  check(symbols);
  if (symbols.P != 1) throw InternalError("parameters_on_rank counts one stage; use P = 1");
  std::int64_t sum = 0;
  for (const ParameterItem& item : parameter_items(symbols)) sum += elements_on_rank(item, symbols);
  return sum;
}

}  // namespace annulus
