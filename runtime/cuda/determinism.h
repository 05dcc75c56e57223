#pragma once

#include <cstdint>

namespace annulus {

/// Whether a step gives the same bits again, on one machine, mesh and set of libraries.
enum class Determinism : std::uint8_t {
  any,      ///< whatever algorithms are fastest
  bitwise,  ///< only algorithms that add in a fixed order
};

}  // namespace annulus
