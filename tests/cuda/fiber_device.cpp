#include "tests/cuda/fiber_device.h"

#include <random>
#include <type_traits>

#include "runtime/cuda/launch.h"
#include "runtime/ops/op_table.h"

namespace annulus::testing {

FiberDevice::FiberDevice() : scheduler_(std::random_device{}()) {}

std::int64_t FiberDevice::workspace_bytes(const OpDefinition& definition, OpDefinition::Types inputs,
                                          OpDefinition::Types outputs) {
  return visit_compute(definition, [&]<class Kind>(const Kind& op) -> std::int64_t {
    if constexpr (std::is_same_v<Kind, Matmul>) {
      return host_.workspace_bytes(op, inputs, outputs);
    } else {
      return device_workspace_bytes(op, inputs, outputs);
    }
  });
}

void FiberDevice::run(const OpDefinition& definition, const KernelArguments& arguments) {
  visit_compute(definition, [&]<class Kind>(const Kind& op) {
    if constexpr (std::is_same_v<Kind, Matmul>) {
      host_.run(op, arguments);
    } else {
      const std::int64_t before = scheduler_.pairs();
      launch(op, arguments, FiberLauncher{scheduler_});
      arguments.counters->attended_pairs += scheduler_.pairs() - before;
    }
  });
}

}  // namespace annulus::testing
