#pragma once

#include <memory>
#include <string>
#include <vector>

#include "launch/memory.h"
#include "launch/process.h"
#include "launch/run_config.h"
#include "runtime/execute/calibration.h"
#include "runtime/execute/executor.h"

namespace annulus {

/// What a rank's programs run on, as the configuration has it: the one place that knows which device that is.
class RankDevice {
 public:
  virtual ~RankDevice() = default;
  virtual Device& device() = 0;
  /// All ranks, over buffers in the memory of their devices.
  virtual Communicator& world() = 0;
  /// Another device of this kind, for what gives its memory back. Its products are computed as this one's, and those
  /// that nothing was chosen for by what it finds fastest.
  virtual std::unique_ptr<Device> another() = 0;
  virtual int threads() const = 0;
  /// As profiles name what utilisation is counted against: `this CPU, 2 threads`.
  virtual std::string processor() const = 0;
  /// How programs run here, watched by nobody.
  virtual ExecutorOptions executor_options() = 0;
  /// Before a program is given memory: sees to it that the device has what this rank will need at one time, and then
  /// has the algorithms of these programs' products chosen, which takes memory, too, but less. Returns what was
  /// chosen, for `device.products`; empty where there is no choice. Collective; throws AgreedConfigError where the
  /// memory is too little, or the file that `device.products` names does not fit.
  std::string make_ready(const MemoryNeed& need, std::int64_t device_reserve_bytes,
                         const std::vector<const Program*>& programs) {
    check_memory(need, device_reserve_bytes);
    return choose_products(programs);
  }
  /// Bytes of the device's own memory that libraries have taken since it was made, beside what was allocated; 0 where
  /// nobody can tell, or the host's memory is the device's.
  virtual std::int64_t taken_by_libraries() = 0;
  /// Ends what this rank's collectives are in, so that the thread that waits for them throws; false where only the end
  /// of the process does. From any thread; may wait until that thread has let its executors go.
  virtual bool abort_collectives() = 0;

 private:
  /// Throws AgreedConfigError where a host, or a GPU, has less memory than its ranks need together. Collective.
  virtual void check_memory(const MemoryNeed& need, std::int64_t device_reserve_bytes) = 0;
  /// Takes the algorithms of products from the file that the configuration names, and chooses what it lacks.
  virtual std::string choose_products(const std::vector<const Program*>& programs) = 0;
};

/// Collective; throws AgreedConfigError where a rank cannot have what the configuration asks for.
std::unique_ptr<RankDevice> make_rank_device(Process& process, const RunConfig& config);

/// What calibration measures of this machine, with what libraries take of a GPU's memory. Collective.
HardwareProfile measured_profile(Process& process, RankDevice& device, CalibrationMode mode);

}  // namespace annulus
