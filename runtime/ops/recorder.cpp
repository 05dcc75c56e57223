#include "runtime/ops/recorder.h"

#include "runtime/core/random.h"

namespace annulus {

ValueId Recorder::layer_norm(ValueId x, ValueId gamma, ValueId beta, double epsilon) {
  return program_.emit(std::make_shared<LayerNorm>(epsilon), {x, gamma, beta}).front();
}

ValueId Recorder::embed(ValueId ids, ValueId table) {
  return one<Embed>({ids, table}, shard_offset(mesh(), type(table), 0));
}

ValueId Recorder::dropout(ValueId x, ValueId row_ids, ValueId step, double rate, std::uint64_t seed) {
  if (rate == 0) return x;
  const DropoutMask mask{rate, seed, stream_id("dropout." + program_.scope())};
  return one<Dropout>({x, row_ids, step}, mask, shard_offset(mesh(), type(x), 1));
}

Recorder::AttentionResult Recorder::attention(ValueId q, ValueId kv, ValueId row_ids, ValueId step,
                                              AttentionShape shape, AttentionAxes axes, double dropout_rate,
                                              std::uint64_t seed) {
  const DropoutMask mask{dropout_rate, seed, stream_id("dropout." + program_.scope())};
  const std::int64_t head_offset = shard_offset(mesh(), type(q), 1) / shape.head_dim;
  const auto outputs =
      program_.emit(std::make_shared<Attention>(shape, axes, mask, head_offset), {q, kv, row_ids, step});
  return {outputs[0], outputs[1]};
}

ValueId Recorder::collective(ValueId x, CollectiveRequest request) {
  request.axes = mesh().live(request.axes);
  if (request.axes.empty()) return x;
  if (filter_) {
    const auto filtered = filter_(request);
    if (!filtered) return x;
    request = *filtered;
  }
  const AxisSet axes = request.axes;
  switch (request.kind) {
    case OpKind::all_reduce:
      return one<AllReduce>({x}, axes, request.reduction);
    case OpKind::all_gather:
      return one<AllGather>({x}, axes, request.dim);
    case OpKind::reduce_scatter:
      return one<ReduceScatter>({x}, axes, request.dim);
    case OpKind::slice:
      return one<Slice>({x}, axes, request.dim, mesh().index(axes), mesh().size(axes));
    default:
      throw InternalError(std::string(name_of(request.kind)) + " is not a collective that models record");
  }
}

}  // namespace annulus
