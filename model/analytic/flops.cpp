#include "model/analytic/flops.h"

#include <algorithm>

#include "model/analytic/parameters.h"
#include "runtime/core/error.h"

namespace annulus {

double attended_pairs(std::int64_t length, AttentionCount count) {
  const auto tokens = static_cast<double>(length);
  return count == AttentionCount::full ? tokens * tokens : tokens * (tokens + 1) / 2;
}

std::int64_t ring_step_pairs(RingLayout layout, std::int64_t local_tokens, std::int64_t query_rank,
                             std::int64_t key_rank) {
  const std::int64_t n = local_tokens;
  if (query_rank == key_rank) return n * (n + 1) / 2;
  const bool later = query_rank > key_rank;
  switch (layout) {
    case RingLayout::contiguous:
      return later ? n * n : 0;
    case RingLayout::striped:
      return later ? n * (n + 1) / 2 : n * (n - 1) / 2;
    case RingLayout::zigzag:
      return n * n / 2;
  }
  throw InternalError("unknown ring layout");
}

std::int64_t ring_rank_pairs(RingLayout layout, std::int64_t ring_size, std::int64_t local_tokens, std::int64_t rank) {
  const std::int64_t n = local_tokens;
  switch (layout) {
    case RingLayout::contiguous:
      return n * (n + 1) / 2 + rank * n * n;
    case RingLayout::striped:
      return (rank + 1) * (n * (n + 1) / 2) + (ring_size - 1 - rank) * (n * (n - 1) / 2);
    case RingLayout::zigzag:
      return n * (ring_size * n + 1) / 2;
  }
  throw InternalError("unknown ring layout");
}

std::int64_t ring_makespan_pairs(RingLayout layout, std::int64_t ring_size, std::int64_t local_tokens) {
  const std::int64_t n = local_tokens;
  switch (layout) {
    case RingLayout::contiguous:
      return n * (n + 1) / 2 + (ring_size - 1) * n * n;
    case RingLayout::striped:
      return ring_size * (n * (n + 1) / 2);
    case RingLayout::zigzag:
      return n * (ring_size * n + 1) / 2;
  }
  throw InternalError("unknown ring layout");
}

std::vector<ProductItem> product_items(const Symbols& s) {
  check(s);
  if (s.P != 1) throw InternalError("product_items counts one stage; use P = 1");
  const std::int64_t layer_calls = s.L * s.m;
  const std::int64_t layer_backward = layer_calls * (s.recompute == Recompute::full ? 3 : 2);
  const auto item = [&](const char* name, std::int64_t in, std::int64_t out, std::int64_t forward,
                        std::int64_t backward) {
    return ProductItem{name,    2 * s.b() * in * out, std::max({s.b() * in, s.b() * out, in * out}), in * out, forward,
                       backward};
  };
  const std::int64_t heads = s.local_heads() * s.H;
  return {
      item("query", s.D, heads, layer_calls, layer_backward),
      item("key and value", s.D, 2 * s.local_kv_heads() * s.H, layer_calls, layer_backward),
      item("attention output", heads, s.D, layer_calls, layer_backward),
      item("up", s.D, (s.mlp_products - 1) * s.local_ffn(), layer_calls, layer_backward),
      item("down", s.local_ffn(), s.D, layer_calls, layer_backward),
      item("head", s.D, s.padded_vocabulary() / s.T, s.m, 2 * s.m),
  };
}

std::int64_t product_flops(const Symbols& symbols) {
  std::int64_t sum = 0;
  for (const ProductItem& item : product_items(symbols)) sum += item.flops * (item.forward_calls + item.backward_calls);
  return sum;
}

AttentionPairs attention_pairs(const Symbols& s, std::int64_t ring_rank) {
  check(s);
  const std::int64_t once = s.m * s.L * s.B * s.local_heads() * ring_rank_pairs(s.layout, s.R, s.n(), ring_rank);
  // Flash keeps no core, so that selective recomputation has nothing to repeat (section 3.4).
  const bool again = s.recompute == Recompute::full ||
                     (s.recompute == Recompute::selective && s.attention == AttentionStorage::materialised);
  return {again ? 2 * once : once, once};
}

std::int64_t attention_forward_flops(const Symbols& symbols, std::int64_t pairs) { return 4 * symbols.H * pairs; }

std::int64_t attention_backward_flops(const Symbols& symbols, std::int64_t pairs) {
  return (symbols.attention == AttentionStorage::flash ? 10 : 8) * symbols.H * pairs;
}

std::int64_t executed_flops(const Symbols& symbols, std::int64_t ring_rank) {
  const AttentionPairs pairs = attention_pairs(symbols, ring_rank);
  return product_flops(symbols) + attention_forward_flops(symbols, pairs.forward) +
         attention_backward_flops(symbols, pairs.backward);
}

ForwardFlops forward_flops(const Symbols& s, AttentionCount count) {
  const auto tokens = static_cast<double>(s.tokens());
  const auto weights = static_cast<double>(s.D * (2 * s.A + 2 * s.G) * s.H + s.mlp_products * s.D * s.F);
  ForwardFlops flops;
  flops.layer_products = 2 * tokens * weights * static_cast<double>(s.L);
  flops.layer_attention = 4 * static_cast<double>(s.global_sequences() * s.L * s.A * s.H) * attended_pairs(s.S, count);
  flops.head = 2 * tokens * static_cast<double>(s.D * s.V);
  return flops;
}

double model_flops(const Symbols& symbols, AttentionCount count) {
  const ForwardFlops forward = forward_flops(symbols, count);
  return 3 * (forward.layer_products + forward.layer_attention + forward.head);
}

double model_flops_6n(const Symbols& symbols) {
  return 6 * static_cast<double>(parameters_in_products(symbols)) * static_cast<double>(symbols.tokens());
}

double hardware_flops(const Symbols& symbols, AttentionCount count) {
  const ForwardFlops forward = forward_flops(symbols, count);
  const double model = model_flops(symbols, count);
  switch (symbols.recompute) {
    case Recompute::none:
      return model;
    case Recompute::selective:
      return model + forward.layer_attention;
    case Recompute::full:
      return model + forward.layer_products + forward.layer_attention;
  }
  throw InternalError("unknown recomputation");
}

double utilisation(double flops, double seconds, std::int64_t ranks, double peak_flops_per_second) {
  return flops / (seconds * static_cast<double>(ranks) * peak_flops_per_second);
}

double training_seconds(const Symbols& symbols, double training_tokens, double peak_flops_per_second, double mfu_6n) {
  const double flops = 6 * static_cast<double>(parameters_in_products(symbols)) * training_tokens;
  return flops / (static_cast<double>(symbols.ranks()) * peak_flops_per_second * mfu_6n);
}

}  // namespace annulus
