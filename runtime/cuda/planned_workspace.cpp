#include "runtime/cuda/planned_workspace.h"

#include <type_traits>

#include "runtime/cuda/cudnn_operands.h"
#include "runtime/cuda/launch.h"
#include "runtime/ops/op_table.h"

namespace annulus {
namespace {

/// What cuDNN would take on the newest GPUs that this build knows, or our own kernels where it refuses.
template <class Step>
std::int64_t attention_bytes(const Step& op, OpDefinition::Types inputs, OpDefinition::Types outputs) {
  const CudnnPlan plan = plan_cudnn(task_of(op, inputs, outputs), {.compute_capability = 90});
  if (!plan.refusal.empty()) return device_workspace_bytes(op, inputs, outputs);
  if (!plan.graph) return 0;
  return packed_bytes(*plan.graph) + estimated_workspace_bytes(*plan.graph) + kCudnnWorkspaceAlignment;
}

}  // namespace

std::int64_t planned_workspace_bytes(const OpDefinition& definition, OpDefinition::Types inputs,
                                     OpDefinition::Types outputs) {
  return visit_compute(definition, [&]<class Kind>(const Kind& op) -> std::int64_t {
    if constexpr (std::is_same_v<Kind, Matmul>) {
      return kProductWorkspaceBytes;
    } else if constexpr (std::is_base_of_v<RingStep<Kind::kKind>, Kind>) {
      return attention_bytes(op, inputs, outputs);
    } else {
      return device_workspace_bytes(op, inputs, outputs);
    }
  });
}

}  // namespace annulus
