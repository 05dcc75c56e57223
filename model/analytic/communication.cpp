#include "model/analytic/communication.h"

#include <utility>

#include "model/analytic/gradients.h"
#include "runtime/core/error.h"
#include "runtime/simulate/collective_cost.h"

namespace annulus {
namespace {

using enum CommunicationRole;
using enum StepPhase;

constexpr std::int64_t kScalarBytes = 8;  // sums over a whole step are f64, whatever the activations

/// Collects items, and leaves out what one rank does alone.
class Items {
 public:
  void add(CommunicationRole role, StepPhase phase, CollectiveKind kind, const GroupAxes& axes, std::int64_t calls,
           std::int64_t bytes_per_call) {
    if (axes.size == 1 || calls == 0) return;
    items_.push_back({role, phase, kind, axes.name, axes.size, calls, calls * bytes_per_call});
  }
  void add_in_buckets(CommunicationRole role, CollectiveKind kind, const GroupAxes& axes, std::int64_t bytes) {
    if (axes.size == 1 || bytes == 0) return;
    items_.push_back({role, tail, kind, axes.name, axes.size, std::nullopt, bytes});
  }
  std::vector<CommunicationItem> take() { return std::move(items_); }

 private:
  std::vector<CommunicationItem> items_;
};

void add_tensor_parallel(const Symbols& s, Items& items) {
  const GroupAxes tp = group_axes(s, 1, 1, TpPart::all);
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
  const GroupAxes cp = group_axes(s, 1, s.R, TpPart::none);
  const std::int64_t elements = 2 * s.b() * s.local_kv_heads() * s.H;
  const std::int64_t hops = (s.R - 1) * s.L * s.m;
  const std::int64_t backward_passes = s.recompute == Recompute::full ? 2 : 1;
  items.add(ring_kv, forward, CollectiveKind::shift, cp, hops, s.p * elements);
  items.add(ring_kv, backward, CollectiveKind::shift, cp, backward_passes * hops, s.p * elements);
  items.add(ring_kv_gradient, backward, CollectiveKind::shift, cp, hops, s.p_travelling * elements);
}

void add_gradients(const Symbols& s, Items& items) {
  for (const GradientGroup& group : gradient_groups(s)) {
    if (!s.shards_optimizer()) {
      items.add_in_buckets(gradients, CollectiveKind::all_reduce, group.reduced, s.p_gradient * group.elements);
      continue;
    }
    const std::int64_t elements = group.part() * group.reduced.size;
    items.add_in_buckets(gradients, CollectiveKind::reduce_scatter, group.reduced, s.p_gradient * elements);
    items.add_in_buckets(weights, CollectiveKind::all_gather, group.reduced, s.p * elements);
  }
}

/// Squares are summed over the ranks that have different gradients.
void add_scalars(const Symbols& s, Items& items) {
  constexpr auto kKind = CollectiveKind::all_reduce;
  const auto add_norm = [&](std::int64_t dp, std::int64_t cp, TpPart part) {
    items.add(gradient_norm, tail, kKind, group_axes(s, dp, cp, part), 1, kScalarBytes);
  };
  if (s.shards_optimizer()) {
    add_norm(s.W, s.R, TpPart::all);
    if (s.T > 1 && !s.sequence_parallel) add_norm(s.W, s.R, TpPart::none);  // what tp replicates
  } else {
    add_norm(1, 1, TpPart::all);
    if (s.tr() > 1) add_norm(1, 1, TpPart::tk);
  }
  items.add(loss_sums, tail, kKind, group_axes(s, s.W, s.R, TpPart::none), 1, 2 * kScalarBytes);
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
    case weights:
      return "updated weights";
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
  items.add(loss_statistics, forward, CollectiveKind::all_reduce, group_axes(symbols, 1, 1, TpPart::all),
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
