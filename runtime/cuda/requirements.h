#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace annulus {

/// What the CUDA runtime tells of this process's machine. Versions as CUDA counts them: 13000 is 13.0.
struct CudaMachine {
  int driver_version = 0;  ///< newest CUDA that the driver runs; 0 where there is no driver
  int runtime_version = 0;
  int devices = 0;
};

/// Why a rank cannot have GPU `ordinal`, and what to do about it; nothing where it can.
std::optional<std::string> missing_device(const CudaMachine& machine, int ordinal);

/// The oldest compute capability (major * 10 + minor) that this build has kernels for.
inline constexpr int kOldestCapability = 80;
std::optional<std::string> unusable_device(const std::string& name, int capability);

/// Why `bytes` cannot be had where `free_bytes` of `total_bytes` are free.
std::string too_little_memory(std::int64_t bytes, std::int64_t free_bytes, std::int64_t total_bytes);

}  // namespace annulus
