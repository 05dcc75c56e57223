#pragma once

#include <map>

#include "runtime/program/program.h"

namespace annulus {

/// Adds each parameter's gradient of this micro-batch to its accumulator, where the gradient is made. `gradients` is
/// what `differentiate` returned for the segment just recorded; returns the accumulated ones.
std::map<ValueId, ValueId> accumulate_gradients(Program& program, const std::map<ValueId, ValueId>& gradients,
                                                const std::map<ValueId, ValueId>& accumulators);

/// Sums every gradient that is partial over the axes over which it is: one collective over the *set* of axes, in
/// buckets of about `bucket_bytes`, each recorded behind the op that completes its last gradient, so that it runs under
/// the rest of the backward. Covers data parallelism over dp x cp, the norms and row biases of sequence parallelism,
/// and kv weights that are replicated over ranks of tp. Returns the reduced gradients.
std::map<ValueId, ValueId> reduce_gradients(Program& program, const std::map<ValueId, ValueId>& gradients,
                                            std::int64_t bucket_bytes);

/// Sum of the squares of all gradients, over all ranks, each element once: f64 [1], replicated. Squares are added by
/// the axes over which they are partial, and each class is reduced once.
ValueId global_sum_squares(Program& program, const std::map<ValueId, ValueId>& gradients);

}  // namespace annulus
