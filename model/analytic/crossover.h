#pragma once

#include <cstdint>

#include "model/analytic/symbols.h"

namespace annulus {

/// Ratios of communication to compute, and the sizes at which they reach one. `rate` is the FLOP/s that the products
/// reach (lambda_F eta), `bandwidth` the bytes per second and direction of one rank's link (lambda_c). Section 10.

/// Communication over computation of a layer's forward pass under tensor parallelism, nothing overlapped. Independent
/// of the batch. The notes' (7.9), corrected (errata E-7.9: it was inverted, and lacked factors). `mean_keys` is what a
/// query attends to on average: S, or (S + 1) / 2 where causal.
double tp_communication_ratio(const Symbols& symbols, double mean_keys, double rate, double bandwidth);
/// The hidden size D at which that ratio is one, for a plain block: G = A, A H = D, F = expansion D.
double tp_hidden_size_at_par(double tp, double activation_bytes, double expansion, double mean_keys, double rate,
                             double bandwidth);

/// Tokens per rank n from which a hop of K and V hides behind the attention of one block.
double ring_tokens_to_hide_full_blocks(const Symbols& symbols, double rate, double bandwidth);  ///< contiguous
double ring_tokens_to_hide_half_blocks(const Symbols& symbols, double rate, double bandwidth);  ///< zig-zag, striped
double ring_tokens_to_hide_backward(const Symbols& symbols, double rate, double bandwidth);     ///< with dK and dV
/// Bytes of the ring over bytes of all-to-alls (Ulysses), forward: R G / (A + G). Section 4.
double ring_over_all_to_all_bytes(const Symbols& symbols);

/// Tokens of the last micro-batch per rank from which the reduction of gradients hides behind its backward pass.
double dp_tokens_to_hide(const Symbols& symbols, double rate, double bandwidth);

/// Time of a stage's transfers over its forward compute, for a plain block with E = 4.
double pipeline_transfer_ratio(const Symbols& symbols, double rate, double bandwidth);
/// Idle share of the ideal time: (P - 1) / (v m), for 1F1B and interleaved schedules. Section 9.
double pipeline_bubble(std::int64_t stages, std::int64_t virtual_stages, std::int64_t micro_batches);
/// The head's products, in layers. Section 9.
double head_in_layers(const Symbols& symbols);

/// Share of the best possible time that the ring's slowest rank leaves: S (S + 1) / 2 / R over the makespan. Section 8.
double ring_efficiency(RingLayout layout, std::int64_t ring_size, std::int64_t local_tokens);
/// Seconds of a ring, in units of a full block's, where a hop takes `hop` of them. Section 8, "with transfers".
double contiguous_ring_time(std::int64_t ring_size, double hop);
double zigzag_ring_time(std::int64_t ring_size, double hop);
/// Makespan of striped over zig-zag where whole tiles are computed, `tiles` = n / tile. Section 8, errata E-7.4.1-x.
double striped_over_zigzag_tiles(std::int64_t ring_size, std::int64_t tiles);

/// Time-optimal batch for a step of kappa B + sigma seconds, S = S_min (1 + B_n / B) steps and E_min = B_n S_min
/// examples, and the time of that training. Section 11; the notes' (E.9), corrected (errata E-E.9).
double time_optimal_batch(double kappa, double sigma, double least_steps, double least_examples);
double least_training_seconds(double kappa, double sigma, double least_steps, double least_examples);

}  // namespace annulus
