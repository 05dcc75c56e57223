#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/analytic/symbols.h"
#include "runtime/program/memory_plan.h"

namespace annulus {

std::int64_t total_bytes(const std::vector<MemoryItem>& items);

/// Weights, accumulated gradients, and the optimizer's moments and master copies of one rank, padding included; those
/// of the optimizer are of its part under ZeRO-1. Section 3.1; the notes' (3.4), corrected.
std::vector<MemoryItem> state_items(const Symbols& symbols);

/// What one layer keeps of one micro-batch from its forward for its backward pass. Under full recomputation, its input
/// alone. Section 3.2; the notes' (3.5)-(3.8), corrected (errata E-3.5x, E-3.8).
std::vector<MemoryItem> layer_activation_items(const Symbols& symbols);

/// What is kept of one micro-batch outside the layers for its backward pass; neither logits nor ids.
/// Section 3.3.
std::vector<MemoryItem> other_activation_items(const Symbols& symbols);

/// All that is kept of one micro-batch when its loss is computed: L layers and the rest, without logits and ids.
std::vector<MemoryItem> activation_items(const Symbols& symbols);

/// One copy of the local logits: the loss and its gradient are computed in place. Section 3.3.
std::int64_t logits_bytes(const Symbols& symbols);

/// Buffers of the ring, used by one layer at a time: K and V, dK and dV, each twice. None for R = 1. Section 3.3.
std::vector<MemoryItem> ring_buffer_items(const Symbols& symbols);

/// Micro-batches (or parts: 1 / v) whose activations stage `stage` holds at once, under 1F1B with v virtual stages per
/// rank. Section 3.5.
double in_flight_micro_batches(std::int64_t stages, std::int64_t virtual_stages, std::int64_t micro_batches,
                               std::int64_t stage);

}  // namespace annulus
