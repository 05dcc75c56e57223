#include "model/analytic/of_step.h"

#include "runtime/core/dtype.h"

namespace annulus {

Symbols symbols_of(const MeshAxes& mesh, const StepOptions& options) {
  const ModelConfig& model = options.model;
  Symbols s;
  s.A = model.heads;
  s.G = model.kv_heads;
  s.H = model.head_dim;
  s.D = model.hidden;
  s.F = model.ffn;
  s.L = model.layers;
  s.V = model.vocabulary;
  s.K = model.block_size;
  s.vocabulary_multiple = model.vocabulary_padding;
  s.B = options.micro_sequences;
  s.S = options.sequence_length;
  s.m = options.micro_batches;
  s.T = mesh.size(mesh_axis::kTensor);
  s.R = mesh[mesh_axis::cp].size;
  s.W = mesh[mesh_axis::dp].size;
  s.zero1 = options.optimizer_sharding == OptimizerSharding::zero1;
  s.layout = options.layout;
  s.sequence_parallel = options.sequence_parallel == SequenceParallel::on;
  const std::int64_t wide_bytes = size_of(wide(options.dtype));
  s.p = size_of(options.dtype);
  s.p_gradient = s.p_travelling = s.p_statistic = wide_bytes;
  s.p_optimizer = 2 * wide_bytes;
  s.p_master = is_half(options.dtype) ? wide_bytes : 0;
  s.fused_epilogues = true;
  return s;
}

}  // namespace annulus
