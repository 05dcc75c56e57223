#pragma once

#include <map>
#include <string>

#include "model/step_runner.h"

namespace annulus {

/// A whole, unpadded value of every parameter, by its name; row-major.
using WholeValues = std::map<std::string, std::vector<double>>;

/// Loss, norm and every whole gradient of a step that one rank has taken.
struct ReferenceStep {
  StepSummary summary;
  WholeValues gradients;
  double largest_gradient = 0;  ///< absolute value of the largest entry of all
};

/// Largest differences of a sharded step from the reference. Gradients are compared relative to the model's largest
/// entry: a key bias has a gradient of exactly zero, so that an error relative to itself means nothing.
struct Deviation {
  double loss = 0;                   ///< relative
  double norm = 0;                   ///< relative
  double gradient = 0;               ///< relative to `largest_gradient`
  std::string parameter;             ///< where
  std::vector<double> by_parameter;  ///< of each parameter's gradient, in the order of the step's parameters

  double worst() const;
  bool operator<(const Deviation& other) const { return worst() < other.worst(); }
};

/// The options of the same step on one rank: the same global batch, the same micro-batches.
StepOptions one_rank_options(const StepOptions& options, int dp);

/// Takes the step of `options` on one rank, from the seed's initial weights.
ReferenceStep take_reference_step(const StepOptions& options, Device& device, std::int64_t step_number,
                                  const SequenceReader& read);

/// Compares what this rank has of the gradients after a step recorded with Tail::gradients.
Deviation deviation_from(const ReferenceStep& reference, const StepRunner& runner);

/// Steps with updates, at a learning rate that is the unit of `update_deviation`: several, so that moments count.
void take_updates(StepRunner& runner, const SequenceReader& read);
/// The weights after them on one rank, from the seed's initial ones.
WholeValues take_reference_updates(const StepOptions& options, Device& device, const SequenceReader& read);
/// Of a parameter's `elements`, the first whose update can be compared. Key biases, the first part of two, cannot:
/// their gradient is exactly zero, and AdamW makes whole steps of its rounding.
std::size_t first_comparable(const std::string& parameter, std::size_t elements);
/// The largest difference of this rank's weights after them, in learning rates, where it can be compared.
double update_deviation(const WholeValues& reference, const StepRunner& runner);

/// Random tokens of the vocabulary, and loss weights of which some are 0: a function of the seed alone.
SequenceReader random_sequences(std::uint64_t seed, std::int64_t vocabulary);

}  // namespace annulus
