#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/analytic/symbols.h"
#include "runtime/core/communicator.h"

namespace annulus {

enum class StepPhase : std::uint8_t { forward, backward, tail };

/// What a collective is for.
enum class CommunicationRole : std::uint8_t {
  embedding,                       ///< vocab-parallel: partial rows become whole
  embedding_gradient,              ///< SP: gathers the gradient of the embedding's output
  row_parallel_output,             ///< Megatron's g
  column_parallel_input,           ///< SP: gathers the input
  column_parallel_input_again,     ///< SP: gathers it again, for the weight gradient
  column_parallel_input_gradient,  ///< Megatron's f
  row_parallel_output_gradient,    ///< SP: gathers it
  head_input,
  head_input_again,
  head_input_gradient,
  loss_statistics,  ///< maximum, sum of exponentials, logit of the target
  ring_kv,          ///< one message of K and V to the next rank
  ring_kv_gradient,
  gradients,
  weights,  ///< updated, under ZeRO-1
  gradient_norm,
  loss_sums,  ///< the loss and the sum of loss weights, in one call
};

std::string_view name_of(CommunicationRole role);

/// The collectives of one role on one rank, in one step of m micro-batches.
struct CommunicationItem {
  CommunicationRole role{};
  StepPhase phase{};
  CollectiveKind kind{};
  /// Mesh axes of more than one rank, outer to inner, joined by "+": "tp", "cp", "dp+cp", "dp+cp+tp". The two factors
  /// of tp appear by name, "tk" or "tr", only where one of them is meant and is not all of tp (grouped queries, G < T).
  std::string axes;
  int group_size = 1;
  /// None for gradients and updated weights: they are packed into buckets, whose number the closed form does not claim.
  std::optional<std::int64_t> calls;
  std::int64_t payload_bytes = 0;  ///< of all calls together; M of collective_cost.h

  double wire_bytes() const;
};

/// Every collective of a step on one rank, P = 1: payloads and calls are exact. Section 4, with R - 1 hops of dK and dV
/// (the home block's stay at home); the notes' 7.2-7.4, corrected (errata E-7.13: the inputs gathered again, and the
/// gradients of norms and row-parallel biases under SP; E-fn52: three all-reduces for the loss).
/// Full recomputation repeats a layer's forward collectives, but for its last one.
std::vector<CommunicationItem> communication_items(const Symbols& symbols);

struct CommunicationCount {
  std::optional<std::int64_t> calls = 0;  ///< none where an item's is
  std::int64_t payload_bytes = 0;
  double wire_bytes = 0;
};

/// Sums by kind and axes: to be matched with a program's, and with a communicator's counters.
std::map<std::pair<CollectiveKind, std::string>, CommunicationCount> communication_counts(
    const std::vector<CommunicationItem>& items);

}  // namespace annulus
