#pragma once

#include <string>

#include "runtime/execute/device.h"
#include "runtime/execute/lanes.h"
#include "runtime/simulate/hardware_profile.h"

namespace annulus {

enum class CalibrationMode : std::uint8_t {
  quick,  ///< seconds: what a first run measures where it was given no profile
  full,   ///< most of a minute: more sizes, f64, longer messages
};

struct CalibrationOptions {
  CalibrationMode mode = CalibrationMode::full;
  std::string processor = "this CPU";  ///< of each rank, for the profile's names
  Communicator* transfers = nullptr;   ///< the same ranks over buffers in their devices' memory; null: `world` is that
  Progress progress = Progress::thread;
  SharedAllocator shared_memory = {};  ///< as in ExecutorOptions
};

/// Measures this machine as runs use it: the device's own kernels, on all ranks at the same time, since they share
/// memory and caches; collectives through a lane, over groups of neighbouring ranks, one for each divisor of the
/// world's size. Every rank gets the same profile. Collective over `world`, whose buffers are the host's; `device`
/// keeps what it allocates, so give it one that ends with the calibration.
HardwareProfile calibrate(Device& device, Communicator& world, const CalibrationOptions& options);

}  // namespace annulus
