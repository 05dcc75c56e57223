#pragma once

#include <cstdint>

#include "runtime/program/op.h"

namespace annulus {

/// The most workspace that a product may take: cuBLASLt says what its algorithms really want.
inline constexpr std::int64_t kLargestProductWorkspace = std::int64_t{32} << 20;
inline constexpr std::int64_t kProductWorkspaceAlignment = 256;  ///< the library's wish

/// Scratch of an op on a GPU that need not be here: what our kernels take, to the byte, the most for products,
/// and an estimate for attention of halves, which is cuDNN's.
std::int64_t planned_workspace_bytes(const OpDefinition& definition, OpDefinition::Types inputs,
                                     OpDefinition::Types outputs);

}  // namespace annulus
