#pragma once

#include "runtime/cuda/attention_backward.h"
#include "runtime/cuda/attention_forward.h"
#include "runtime/cuda/column_sums.h"
#include "runtime/cuda/cross_entropy.h"
#include "runtime/cuda/dropout.h"
#include "runtime/cuda/elementwise.h"
#include "runtime/cuda/embed.h"
#include "runtime/cuda/layer_norm.h"
#include "runtime/cuda/optimizer.h"

namespace annulus {

/// The kernels of all compute kinds but the product: `launch(op, arguments, launcher)` puts the op's bodies on the
/// launcher, in order; a launcher is called with (Grid, body), and tells by `blocks_at_once()` how many blocks of
/// kThreads threads keep its device busy. A kind without an overload does not compile in a device's `visit_compute`.

/// Scratch memory that `launch` of the op wants, in bytes. Most kinds want none.
template <class Kind>
std::int64_t device_workspace_bytes(const Kind&, OpDefinition::Types, OpDefinition::Types) {
  return 0;
}

}  // namespace annulus
