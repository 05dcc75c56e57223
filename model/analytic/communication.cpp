#include "model/analytic/communication.h"

#include <array>
#include <utility>

#include "model/analytic/parameters.h"
#include "runtime/core/error.h"
#include "runtime/simulate/collective_cost.h"

namespace annulus {
namespace {

using enum CommunicationRole;
using enum StepPhase;

constexpr std::int64_t kScalarBytes = 8;  // sums over a whole step are f64, whatever the activations

enum class TpPart : std::uint8_t { none, tk, tr, all };

struct Axes {
  std::string name;  // empty where no axis has more than one rank
  int size = 1;
};

Axes axes_of(const Symbols& s, std::int64_t dp, std::int64_t cp, TpPart part) {
  const std::int64_t tp = part == TpPart::none ? 1 : part == TpPart::tk ? s.tk() : part == TpPart::tr ? s.tr() : s.T;
  const char* tp_name = tp == s.T ? "tp" : part == TpPart::tk ? "tk" : "tr";
  Axes axes;
  for (const auto& [name, size] :
       std::array<std::pair<const char*, std::int64_t>, 3>{{{"dp", dp}, {"cp", cp}, {tp_name, tp}}}) {
    if (size == 1) continue;
    axes.name += (axes.name.empty() ? "" : "+") + std::string(name);
    axes.size *= static_cast<int>(size);
  }
  return axes;
}

/// Collects items, and leaves out what one rank does alone.
class Items {
 public:
  void add(CommunicationRole role, StepPhase phase, CollectiveKind kind, const Axes& axes, std::int64_t calls,
           std::int64_t bytes_per_call) {
    if (axes.size == 1 || calls == 0) return;
    items_.push_back({role, phase, kind, axes.name, axes.size, calls, calls * bytes_per_call});
  }
  void add_in_buckets(CommunicationRole role, CollectiveKind kind, const Axes& axes, std::int64_t bytes) {
    if (axes.size == 1 || bytes == 0) return;
    items_.push_back({role, tail, kind, axes.name, axes.size, std::nullopt, bytes});
  }
  std::vector<CommunicationItem> take() { return std::move(items_); }

 private:
  std::vector<CommunicationItem> items_;
};

void add_tensor_parallel(const Symbols& s, Items& items) {
  const Axes tp = axes_of(s, 1, 1, TpPart::all);
  const std::int64_t rows_bytes = s.p * s.b() * s.D;
  const std::int64_t sublayers = s.norms * s.L * s.m;
  const std::int64_t replayed = s.recompute == Recompute::full ? (s.norms - 1) * s.L * s.m : 0;
  const auto add = [&](CommunicationRole role, StepPhase phase, CollectiveKind kind, std::int64_t calls) {
    items.add(role, phase, kind, tp, calls, rows_bytes);
  };
  if (!s.sequence_parallel) {
    constexpr auto kKind = CollectiveKind::all_reduce;
    add(embedding, forward, kKind, s.m);
    add(row_parallel_output, forward, kKind, sublayers);
    add(row_parallel_output, backward, kKind, replayed);
    add(column_parallel_input_gradient, backward, kKind, sublayers);
    add(head_input_gradient, backward, kKind, s.m);
    return;
  }
  constexpr auto kGather = CollectiveKind::all_gather;
  constexpr auto kScatter = CollectiveKind::reduce_scatter;
  add(embedding, forward, kScatter, s.m);
  add(embedding_gradient, backward, kGather, s.m);
  add(column_parallel_input, forward, kGather, sublayers);
  add(column_parallel_input, backward, kGather, s.recompute == Recompute::full ? sublayers : 0);
  add(row_parallel_output, forward, kScatter, sublayers);
  add(row_parallel_output, backward, kScatter, replayed);
  add(row_parallel_output_gradient, backward, kGather, sublayers);
  add(column_parallel_input_again, backward, kGather, s.layer_input == GatheredInput::gathered_again ? sublayers : 0);
  add(column_parallel_input_gradient, backward, kScatter, sublayers);
  add(head_input, forward, kGather, s.m);
  add(head_input_again, backward, kGather, s.head_input == GatheredInput::gathered_again ? s.m : 0);
  add(head_input_gradient, backward, kScatter, s.m);
}

void add_ring(const Symbols& s, Items& items) {
  const Axes cp = axes_of(s, 1, s.R, TpPart::none);
  const std::int64_t elements = 2 * s.b() * s.local_kv_heads() * s.H;
  const std::int64_t hops = (s.R - 1) * s.L * s.m;
  const std::int64_t backward_passes = s.recompute == Recompute::full ? 2 : 1;
  items.add(ring_kv, forward, CollectiveKind::shift, cp, hops, s.p * elements);
  items.add(ring_kv, backward, CollectiveKind::shift, cp, backward_passes * hops, s.p * elements);
  items.add(ring_kv_gradient, backward, CollectiveKind::shift, cp, hops, s.p_travelling * elements);
}

void add_gradients(const Symbols& s, Items& items) {
  // By the axes over which a parameter's gradient is partial; parameters that share them share buckets.
  const TpPart replicated = s.sequence_parallel ? TpPart::all : TpPart::none;
  std::map<std::string, std::pair<Axes, std::int64_t>> bytes;
  for (const ParameterItem& item : parameter_items(s)) {
    const TpPart part = item.split == ParameterSplit::kv           ? TpPart::tr
                        : item.split == ParameterSplit::replicated ? replicated
                                                                   : TpPart::none;
    const Axes axes = axes_of(s, s.W, s.R, part);
    auto& [found, sum] = bytes[axes.name];
    found = axes;
    sum += s.p_gradient * elements_on_rank(item, s);
  }
  for (const auto& [name, entry] : bytes) {
    items.add_in_buckets(gradients, CollectiveKind::all_reduce, entry.first, entry.second);
  }
}

void add_scalars(const Symbols& s, Items& items) {
  constexpr auto kKind = CollectiveKind::all_reduce;
  items.add(gradient_norm, tail, kKind, axes_of(s, 1, 1, TpPart::all), 1, kScalarBytes);
  if (s.tr() > 1) items.add(gradient_norm, tail, kKind, axes_of(s, 1, 1, TpPart::tk), 1, kScalarBytes);
  items.add(loss_sums, tail, kKind, axes_of(s, s.W, s.R, TpPart::none), 1, 2 * kScalarBytes);
}

}  // namespace

std::string_view name_of(CommunicationRole role) {
  switch (role) {
    case embedding:
      return "embedding";
    case embedding_gradient:
      return "embedding gradient";
    case row_parallel_output:
      return "row-parallel output";
    case column_parallel_input:
      return "column-parallel input";
    case column_parallel_input_again:
      return "column-parallel input, again";
    case column_parallel_input_gradient:
      return "column-parallel input gradient";
    case row_parallel_output_gradient:
      return "row-parallel output gradient";
    case head_input:
      return "head input";
    case head_input_again:
      return "head input, again";
    case head_input_gradient:
      return "head input gradient";
    case loss_statistics:
      return "loss statistics";
    case ring_kv:
      return "ring: K and V";
    case ring_kv_gradient:
      return "ring: dK and dV";
    case gradients:
      return "gradients";
    case gradient_norm:
      return "gradient norm";
    case loss_sums:
      return "loss sums";
  }
  return "?";
}

double CommunicationItem::wire_bytes() const {
  return annulus::wire_bytes(kind, group_size, static_cast<double>(payload_bytes));
}

std::vector<CommunicationItem> communication_items(const Symbols& symbols) {
  check(symbols);
  if (symbols.P != 1) throw InternalError("communication_items counts one stage; use P = 1");
  Items items;
  add_tensor_parallel(symbols, items);
  constexpr std::int64_t kLossStatistics = 3;
  items.add(loss_statistics, forward, CollectiveKind::all_reduce, axes_of(symbols, 1, 1, TpPart::all),
            kLossStatistics * symbols.m, symbols.p_statistic * symbols.b());
  add_ring(symbols, items);
  add_gradients(symbols, items);
  add_scalars(symbols, items);
  return items.take();
}

std::map<std::pair<CollectiveKind, std::string>, CommunicationCount> communication_counts(
    const std::vector<CommunicationItem>& items) {
  std::map<std::pair<CollectiveKind, std::string>, CommunicationCount> counts;
  for (const CommunicationItem& item : items) {
    CommunicationCount& count = counts[{item.kind, item.axes}];
    count.calls = count.calls && item.calls ? std::optional(*count.calls + *item.calls) : std::nullopt;
    count.payload_bytes += item.payload_bytes;
    count.wire_bytes += item.wire_bytes();
  }
  return counts;
}

}  // namespace annulus
