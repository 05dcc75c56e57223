#pragma once

#include "runtime/program/program.h"

namespace annulus {

/// Puts together passes over the stream of residuals and over the logits, for as long as nobody else reads what lies
/// between:
/// - what joins the stream, its bias and dropout, the sum and the norm behind it, as one op;
/// - the three passes over logits, where ranks hold the whole vocabulary;
/// - the gradient of a norm and what is added to it, in that operand's memory where nobody reads it afterwards.
/// A part of `fuse` (fusion.h), behind what becomes epilogues of products.
void fuse_rows(Program& program);

}  // namespace annulus
