#pragma once

#include "parallel/linear.h"

namespace annulus {

/// Rows of an embedding table over `vocabulary` ids, so that each of `tp` ranks holds a multiple of `multiple` rows.
std::int64_t padded_vocabulary(std::int64_t vocabulary, std::int64_t multiple, int tp);

/// Unnormalised cross entropy of logits [rows, V] whose columns may be sharded over tp: three all-reduces of one number
/// a row (maximum, sum of exponentials, target's logit), never a gathered logit. `targets` i32 [rows], `weights`
/// [rows], and `gradient_weights` what stands for them in the gradient (kNoValue: the same); returns sums f64 [2] =
/// (weighted loss, weights). Ids beyond `vocabulary` (padding) are invisible. Source:
/// Megatron-LM, arXiv 1909.08053, section 3.
ValueId vocabulary_parallel_loss(Recorder& recorder, ValueId logits, ValueId targets, ValueId weights,
                                 std::int64_t vocabulary, ValueId gradient_weights = kNoValue);

}  // namespace annulus
