#pragma once

#include <string>
#include <vector>

#include "model/analytic/communication.h"
#include "model/analytic/symbols.h"
#include "runtime/core/dtype.h"
#include "runtime/simulate/hardware_profile.h"

namespace annulus {

/// Seconds that one kind of work takes on one rank in a step.
struct ComputeTime {
  std::string name;
  double forward_seconds = 0;
  double backward_seconds = 0;
};

/// Seconds of the collectives of one role in a step, and how many of them no compute hides.
struct CommunicationTime {
  CommunicationItem item;
  double seconds = 0;
  double exposed_seconds = 0;
};

/// The predicted step of the slowest rank, in seconds.
struct StepTime {
  std::vector<ComputeTime> compute;
  std::vector<CommunicationTime> communication;
  double optimizer_seconds = 0;
  double slowdown_seconds = 0;  ///< of compute, by the collectives that it hides

  double compute_seconds() const;  ///< with the optimizer, without the slowdown
  double communication_seconds() const;
  double exposed_seconds() const;
  /// compute + exposed + slowdown.
  double seconds() const;
  /// Communication over compute: the inverse of the notes' (7.9).
  double communication_to_compute() const;
};

/// Seconds of a step of m micro-batches, P = 1, from counts and measured rates. Sections 6 and 7.
/// Overlap as in section 4: the collectives of products in the forward pass and those of outgoing gradients are
/// exposed; Megatron's f hides behind the weight gradient and a repeated gather behind the data gradient of the same
/// product; a ring's hop hides behind the block that the slowest rank computes meanwhile; the reduction of gradients,
/// per layer, behind the backward pass of the last micro-batch. Weights, their gradients and states, and what attention
/// keeps for its gradient, have left the caches when they are touched again; all else is still there. Throws
/// ConfigError where the profile lacks what is asked.
StepTime step_time(const Symbols& symbols, const HardwareProfile& profile, DType dtype);

}  // namespace annulus
