#pragma once

#include <string>
#include <vector>

#include "runtime/program/memory_plan.h"
#include "runtime/program/schedule.h"
#include "runtime/simulate/hardware_profile.h"

namespace annulus {

/// Exact counts of one run of one op on this rank.
struct OpCost {
  Work work;
  std::int64_t payload_bytes = 0;  ///< of a collective: M, as in collective_cost.h
  double wire_bytes = 0;           ///< of a collective: sent by this rank, modelled
  int group_size = 1;
  Operands operands = Operands::apart;  ///< of a collective
};
OpCost cost_of(const Program& program, const Op& op);

/// Keys that a query of the blocks of an attention step, or of its gradient, meets on average.
double keys_per_query(const OpDefinition& step);

/// On how many hosts the group of this rank over `axes` is, where ranks lie on them in order, so many each; 0: on one.
int hosts_of(const MeshAxes& mesh, AxisSet axes, int ranks_per_host);

/// When an op would run, within one run of its segment.
struct OpPrediction {
  double alone_seconds = 0;  ///< of the kernel, or of the transfer, with nothing beside it
  double seconds = 0;        ///< in the step
  double begin = 0, end = 0;
  double exposed = 0;  ///< of a collective: how long the compute lane would stand still for it
};

/// A discrete-event walk of the program on a machine that a profile describes. Every other rank is taken to arrive when
/// this one does, so what is predicted of a collective is its transfer, never another rank's lateness. Operands come
/// from where they would lie in a run of many steps (reuse.h).
struct StepPrediction {
  std::vector<OpPrediction> ops;
  double step_seconds = 0;
  double compute_seconds = 0;        ///< of kernels with nothing beside them
  double communication_seconds = 0;  ///< all transfers, hidden or not
  double exposed_seconds = 0;
  double flops = 0;  ///< of products and attention
};
StepPrediction predict_step(const Program& program, const Schedule& schedule, const MemoryPlan& plan,
                            const HardwareProfile& profile);

}  // namespace annulus
