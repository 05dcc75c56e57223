#include "model/batch.h"

namespace annulus {

LocalBatch assemble_batch(const MeshAxes& mesh, const StepOptions& options, int micro_batch,
                          const SequenceReader& read) {
  const auto& ring = mesh[mesh_axis::cp];
  const auto& data = mesh[mesh_axis::dp];
  const std::vector<std::int32_t> owned =
      positions(options.layout, ring.size, ring.coordinate, options.sequence_length);
  const auto length = static_cast<std::size_t>(options.sequence_length);
  std::vector<std::int32_t> ids(length), targets(length);
  std::vector<double> weights(length);
  LocalBatch batch;
  for (std::int64_t b = 0; b < options.micro_sequences; ++b) {
    const std::int64_t sequence =
        (static_cast<std::int64_t>(micro_batch) * data.size + data.coordinate) * options.micro_sequences + b;
    read(sequence, ids, targets, weights);
    for (std::int32_t position : owned) {
      const auto at = static_cast<std::size_t>(position);
      batch.ids.push_back(ids[at]);
      batch.targets.push_back(targets[at]);
      batch.weights.push_back(weights[at]);
      batch.positions.push_back(position);
      batch.row_ids.insert(batch.row_ids.end(), {static_cast<std::int32_t>(sequence), position});
    }
  }
  return batch;
}

}  // namespace annulus
