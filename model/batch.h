#pragma once

#include <functional>
#include <span>
#include <vector>

#include "model/train_step.h"

namespace annulus {

/// Gives sequence `index` of the global batch: S inputs, S targets and S loss weights.
using SequenceReader = std::function<void(std::int64_t index, std::span<std::int32_t> ids,
                                          std::span<std::int32_t> targets, std::span<double> weights)>;

/// What one rank sees of one micro-batch: its data-parallel replica's sequences, of each the positions that the ring
/// layout gives it.
struct LocalBatch {
  std::vector<std::int32_t> ids, targets, positions, row_ids;
  std::vector<double> weights;
};

/// Micro-batch j of replica d holds the sequences (j * dp + d) * micro_sequences and following of the global batch.
LocalBatch assemble_batch(const MeshAxes& mesh, const StepOptions& options, int micro_batch,
                          const SequenceReader& read);

}  // namespace annulus
