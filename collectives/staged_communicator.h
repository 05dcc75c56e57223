#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "runtime/core/communicator.h"

namespace annulus {

/// Blocking copies between a device's memory and the host's, behind everything that was asked of the device before.
struct DeviceCopies {
  std::function<void(void* to, const void* from, std::int64_t bytes)> to_host;
  std::function<void(void* to, const void* from, std::int64_t bytes)> to_device;
};

/// The ranks of `host`, over buffers in the memory of their devices: each transfer is copied to the host, carried out
/// there, and copied back by the test that finds it complete. Slow; made to hold other communicators against. Tests
/// and starts of transfers come from the thread that uses the device.
std::unique_ptr<Communicator> staged_communicator(std::unique_ptr<Communicator> host, DeviceCopies copies);

}  // namespace annulus
