#include "runtime/cuda/planned_workspace.h"

#include <type_traits>

#include "runtime/cuda/launch.h"
#include "runtime/ops/op_table.h"

namespace annulus {

std::int64_t planned_workspace_bytes(const OpDefinition& definition, OpDefinition::Types inputs,
                                     OpDefinition::Types outputs) {
  return visit_compute(definition, [&]<class Kind>(const Kind& op) -> std::int64_t {
    if constexpr (std::is_same_v<Kind, Matmul>) {
      return kLargestProductWorkspace + kProductWorkspaceAlignment;
    } else {
      return device_workspace_bytes(op, inputs, outputs);
    }
  });
}

}  // namespace annulus
