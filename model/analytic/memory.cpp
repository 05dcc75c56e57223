#include "model/analytic/memory.h"

#include <algorithm>
#include <utility>

#include "model/analytic/gradients.h"
#include "model/analytic/parameters.h"

namespace annulus {
namespace {

void add(std::vector<MemoryItem>& items, const char* name, std::int64_t bytes) {
  if (bytes > 0) items.push_back({name, bytes});
}

/// Mean and inverse deviation (the mean only where there is a shift), of the rows that this rank norms.
std::int64_t norm_statistics_bytes(const Symbols& s) { return s.norm_vectors * s.p_statistic * s.b() / s.q(); }

/// A column-parallel product's input, as stored.
std::int64_t input_bytes(const Symbols& s, GatheredInput input) {
  return s.p * s.b() * s.D / (input == GatheredInput::gathered_again ? s.q() : 1);
}

/// Weights of the attention core after softmax, and after dropout with their mask.
std::int64_t core_bytes(const Symbols& s) {
  if (s.attention == AttentionStorage::flash || s.recompute == Recompute::selective) return 0;
  const std::int64_t per_score = s.dropout_mask_bytes > 0 ? 2 * s.p + s.dropout_mask_bytes : s.p;
  return s.B * s.local_heads() * s.n() * s.S * per_score;
}

}  // namespace

std::int64_t total_bytes(const std::vector<MemoryItem>& items) {
  std::int64_t sum = 0;
  for (const MemoryItem& item : items) sum += item.bytes;
  return sum;
}

std::vector<MemoryItem> state_items(const Symbols& symbols) {
  const std::int64_t count = parameters_on_rank(symbols), updated = optimizer_elements_on_rank(symbols);
  std::vector<MemoryItem> items;
  add(items, "weights", count * symbols.p);
  add(items, "gradients", count * symbols.p_gradient);
  add(items, "optimizer moments", updated * symbols.p_optimizer);
  add(items, "master weights", updated * symbols.p_master);
  return items;
}

std::vector<MemoryItem> layer_activation_items(const Symbols& s) {
  check(s);
  const std::int64_t rows = s.b();
  const std::int64_t stream = s.p * rows * s.D / s.q();
  std::vector<MemoryItem> items;
  if (s.recompute == Recompute::full) {
    add(items, "norm inputs", stream);
    return items;
  }
  add(items, "norm inputs", s.norms * stream);
  add(items, "norm statistics", s.norms * norm_statistics_bytes(s));
  add(items, "norm outputs", s.norms * input_bytes(s, s.layer_input));
  add(items, "queries, keys and values", s.p * rows * (s.local_heads() + 2 * s.local_kv_heads()) * s.H);
  add(items, "attention core", core_bytes(s));
  add(items, "attention log-sum-exp",
      s.attention == AttentionStorage::flash ? s.p_statistic * rows * s.local_heads() : 0);
  add(items, "attention output", s.p * rows * s.local_heads() * s.H);
  add(items, "MLP hidden", s.mlp_stored * s.p * rows * s.local_ffn());
  add(items, "dropout masks", 2 * s.dropout_mask_bytes * rows * s.D / s.q());
  return items;
}

std::vector<MemoryItem> other_activation_items(const Symbols& s) {
  check(s);
  constexpr std::int64_t kLossStatistics = 2;  // maximum and sum of exponentials; the target's logit has served
  std::vector<MemoryItem> items;
  add(items, "embedding dropout mask", s.dropout_mask_bytes * s.b() * s.D / s.q());
  add(items, "final norm input", s.p * s.b() * s.D / s.q());
  add(items, "final norm statistics", norm_statistics_bytes(s));
  add(items, "head input", input_bytes(s, s.head_input));
  add(items, "loss statistics", kLossStatistics * s.p_statistic * s.b());
  return items;
}

std::vector<MemoryItem> activation_items(const Symbols& symbols) {
  std::vector<MemoryItem> items = layer_activation_items(symbols);
  for (MemoryItem& item : items) item.bytes *= symbols.L;
  for (MemoryItem& item : other_activation_items(symbols)) items.push_back(std::move(item));
  return items;
}

std::int64_t logits_bytes(const Symbols& symbols) {
  check(symbols);
  return symbols.p * symbols.b() * symbols.padded_vocabulary() / symbols.T;
}

std::vector<MemoryItem> ring_buffer_items(const Symbols& s) {
  check(s);
  std::vector<MemoryItem> items;
  if (s.R == 1) return items;
  const std::int64_t elements = 2 * s.b() * s.local_kv_heads() * s.H;
  add(items, "K and V under way", 2 * s.p * elements);
  add(items, "dK and dV under way", 2 * s.p_travelling * elements);
  return items;
}

double in_flight_micro_batches(std::int64_t stages, std::int64_t virtual_stages, std::int64_t micro_batches,
                               std::int64_t stage) {
  if (virtual_stages == 1) return static_cast<double>(std::min(micro_batches, stages - stage));
  const std::int64_t warm_up = 2 * (stages - stage - 1) + (virtual_stages - 1) * stages + 1;
  return static_cast<double>(std::min(micro_batches * virtual_stages, warm_up)) / static_cast<double>(virtual_stages);
}

}  // namespace annulus
