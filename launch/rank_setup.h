#pragma once

#include <memory>
#include <string>
#include <vector>

#include "collectives/watchdog.h"
#include "launch/process.h"
#include "launch/rank_device.h"
#include "launch/run_config.h"
#include "model/train_step.h"
#include "parallel/mesh.h"
#include "runtime/execute/executor.h"

namespace annulus {

/// Reads and resolves the configuration on every rank; a vocabulary of 0 becomes that of the token files. Collective;
/// throws AgreedConfigError.
RunConfig load_run_config(Process& process, const std::string& file, const std::vector<std::string>& overrides);

/// The same for commands that need no job: as if `ranks` ran (or kRanksOfMesh).
RunConfig load_run_config(std::int64_t ranks, const std::string& file, const std::vector<std::string>& overrides);

MeshShape mesh_shape_of(const RunConfig& config);
StepOptions step_options_of(const RunConfig& config);

/// What the profile that the configuration names knows of a GPU's memory beside arenas; 0 where it names none.
std::int64_t device_reserve_bytes(const RunConfig& config);

/// Throws InternalError unless all ranks have recorded the same sequence of collectives.
void check_same_collectives(Process& process, const Program& program);

/// Tells the watchdog which op a rank is in, with a deadline that follows from its predicted time.
class WatchedOps final : public OpMonitor {
 public:
  /// Collective: connects all ranks. A failure prints, and ends the job: in good order where collectives can be
  /// aborted.
  WatchedOps(Process& process, RankDevice& device);
  void begin(std::uint64_t sequence, const char* what, double expected_seconds) override;
  void end() override;
  void watch(std::function<Activity()> activity) override;

 private:
  Watchdog watchdog_;
};

}  // namespace annulus
