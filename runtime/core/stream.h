#pragma once

namespace annulus {

/// A queue of a device's work, as the device itself calls it (CUDA's cudaStream_t): carried out in order, beside other
/// queues. Never defined.
struct Stream;

}  // namespace annulus
