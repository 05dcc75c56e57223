#pragma once

#include <cstdint>

#include "runtime/program/op.h"

namespace annulus {

/// What a product's algorithm may take: what cuBLASLt's documentation advises for sm_90. Every product has so much,
/// whichever algorithm is chosen, so that memory is known before algorithms are timed.
inline constexpr std::int64_t kLargestProductWorkspace = std::int64_t{32} << 20;
inline constexpr std::int64_t kProductWorkspaceAlignment = 256;  ///< the library's wish
inline constexpr std::int64_t kProductWorkspaceBytes = kLargestProductWorkspace + kProductWorkspaceAlignment;

/// Scratch of an op on a GPU that need not be here: to the byte, but for attention of halves, which is cuDNN's: an
/// estimate.
std::int64_t planned_workspace_bytes(const OpDefinition& definition, OpDefinition::Types inputs,
                                     OpDefinition::Types outputs);

}  // namespace annulus
