#include "parallel/linear.h"

#include "runtime/program/rewrite.h"

namespace annulus {

ValueId TensorParallel::enter(ValueId x) {
  return sequence_parallel_ == SequenceParallel::on ? recorder_.all_gather(x, mesh_axis::kTensor, 0) : x;
}

ValueId TensorParallel::leave(ValueId x) {
  return sequence_parallel_ == SequenceParallel::on ? recorder_.reduce_scatter(x, mesh_axis::kTensor, 0)
                                                    : recorder_.all_reduce(x, mesh_axis::kTensor);
}

ValueId TensorParallel::rows(ValueId ids) {
  return sequence_parallel_ == SequenceParallel::on ? recorder_.slice(ids, mesh_axis::kTensor, 0) : ids;
}

Placements sharded_over(AxisSet axes, int dim) {
  Placements places{};
  for (int axis = 0; axis < MeshAxes::kMaxAxes; ++axis)
    if (axes.contains(axis)) places[static_cast<std::size_t>(axis)] = Placement::sharded(dim);
  return places;
}

void gather_again(Program& program) {
  // What the head gathers is read by the backward at once: keeping it costs nothing.
  recompute(program, [](const Op& op) {
    return op.definition->kind() == OpKind::all_gather && op.scope.starts_with("layers.");
  });
}

}  // namespace annulus
