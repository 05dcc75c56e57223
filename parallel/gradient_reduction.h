#pragma once

#include <functional>
#include <map>
#include <span>

#include "runtime/program/program.h"

namespace annulus {

/// Adds each parameter's gradient of this micro-batch to its accumulator, where the gradient is made. `gradients` is
/// what `differentiate` returned for the segment just recorded; returns the accumulated ones.
std::map<ValueId, ValueId> accumulate_gradients(Program& program, const std::map<ValueId, ValueId>& gradients,
                                                const std::map<ValueId, ValueId>& accumulators);

/// Parameters whose gradients travel together are of one class.
struct GradientClass {
  AxisSet reduced;    ///< the axes over which the gradient is partial
  AxisSet sharded;    ///< those over which it is sharded
  int optimizer = 0;  ///< tells apart what the optimizer treats differently

  auto operator<=>(const GradientClass&) const = default;
};

/// Parameters of one class in the order in which the backward completes their gradients.
struct GradientBucket {
  std::vector<ValueId> parameters;
  std::int64_t elements = 0, bytes = 0;
};

/// Packs the gradients that `class_of` puts into a class into buckets, and calls `record` for each, as soon as its last
/// gradient is made, so that what it records runs under the rest of the backward. A bucket is closed where `is_full`,
/// and at the end.
void in_buckets(Program& program, const std::map<ValueId, ValueId>& gradients,
                const std::function<GradientClass(ValueId parameter)>& class_of,
                const std::function<bool(const GradientClass&, const GradientBucket&)>& is_full,
                const std::function<void(const GradientClass&, const GradientBucket&)>& record);

/// Sums every gradient that is partial over the axes over which it is: one collective over the *set* of axes, in
/// buckets of about `bucket_bytes`. Covers data parallelism over dp x cp, the norms and row biases of sequence
/// parallelism, and kv weights that are replicated over ranks of tp. Returns the reduced gradients.
std::map<ValueId, ValueId> reduce_gradients(Program& program, const std::map<ValueId, ValueId>& gradients,
                                            std::int64_t bucket_bytes);

/// Sum of the squares of all gradients, over all ranks, each element once: f64 [1], replicated. Gradients that are
/// sharded over the same axes are one class: one op, and one reduction.
ValueId global_sum_squares(Program& program, std::span<const ValueId> gradients);

}  // namespace annulus
