#pragma once

#include "model/layers.h"

namespace annulus {

/// The inputs of one micro-batch. Rows are the local tokens, sequences one after another, positions in the order of the
/// ring layout.
struct BatchInputs {
  ValueId ids = kNoValue;               ///< i32 [rows]
  ValueId targets = kNoValue;           ///< i32 [rows], the next tokens
  ValueId weights = kNoValue;           ///< [rows], of each token's loss
  ValueId gradient_weights = kNoValue;  ///< the same, times the loss scale; where there is loss scaling
  ValueId positions = kNoValue;         ///< i32 [rows], in the sequence
  ValueId row_ids = kNoValue;           ///< i32 [rows, 2] = (sequence in the global batch, position)
  ValueId step = kNoValue;              ///< i32 [1]
};

/// Whether the gradients of programs of this type are scaled, so that they do not vanish: those of f16 are.
constexpr bool scales_loss(DType dtype) { return dtype == DType::f16; }

/// Declares the inputs for micro-batches of `sequences` sequences per data-parallel replica, of a program of `dtype`.
BatchInputs declare_inputs(Program& program, DType dtype, std::int64_t sequences, std::int64_t sequence_length);

/// GPT-2 (notes section 1, (1.10) *corrected*): embeddings, L pre-norm blocks, final norm, tied head and the loss.
/// Forward only, on any mesh. Returns the unnormalised sums f64 [2] = (weighted loss, weights), partial over dp and cp.
ValueId decoder_loss(ModelContext& context, const BatchInputs& inputs);

}  // namespace annulus
