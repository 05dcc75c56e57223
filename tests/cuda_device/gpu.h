#pragma once

#include <string>

#include "runtime/core/error.h"
#include "runtime/cuda/device.h"

namespace annulus::testing {

/// Why there is no GPU here, or nothing.
inline std::string absence() {
  try {
    cuda_gpus();
  } catch (const DeviceError& error) {
    return error.what();
  }
  return {};
}

}  // namespace annulus::testing
