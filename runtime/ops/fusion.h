#pragma once

#include "runtime/program/program.h"

namespace annulus {

/// Puts together what a kernel does in one pass, for as long as nobody else reads what lies between:
/// - a product, its bias and what is added behind that (a residual, another gradient), as the epilogue of the product;
/// - a product and the activation behind it, which leaves what went into it only where the backward pass reads that; a
///   product and the gradient of an activation behind it;
/// - a product or the gradient of an embedding, and its sum with a value that is not read afterwards, as one op in that
///   value's memory: micro-batches add to their accumulator so, and the head and the embedding to a tied table's
///   gradient;
/// - an all-reduce and its operand, in whose memory its result then lies: half the traffic where ranks share memory;
/// - passes over the stream of residuals, and over the logits: fusion_rows.h.
/// For a program that is complete but for its schedule. Sums are added in another order, so results differ by rounding.
void fuse(Program& program);

}  // namespace annulus
