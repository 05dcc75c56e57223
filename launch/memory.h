#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "launch/process.h"
#include "model/train_step.h"
#include "runtime/execute/device.h"
#include "runtime/program/memory_plan.h"

namespace annulus {

/// What programs take of a rank's memory.
struct MemoryNeed {
  std::int64_t arena_bytes = 0;       ///< of the device's
  std::int64_t evaluation_bytes = 0;  ///< and that of evaluation, which has weights of its own; 0 without it
  std::int64_t host_bytes = 0;        ///< beside these, of the host's: a whole parameter on its way from or to a file
  std::string table;                  ///< the arenas by category, a line each
  std::int64_t device_bytes() const { return arena_bytes + evaluation_bytes; }
};
MemoryNeed memory_need_of(const Program& program, const std::vector<Parameter>& parameters, const MemoryPlan& plan);
/// On a device that is here.
MemoryPlan memory_plan_of(const Program& program, Device& device);
MemoryNeed memory_need_of(const Program& program, const std::vector<Parameter>& parameters, Device& device);
/// Adds what evaluation, which has an arena of its own, needs beside the step.
void add_evaluation(MemoryNeed& need, std::int64_t arena_bytes);

/// What the context of a GPU, NCCL and kernels' modules take at least, beside arenas; a profile may know of more.
inline constexpr std::int64_t kLeastReserveBytes = std::int64_t{1} << 30;

/// A GPU's memory and what the ranks that have it need of it together.
struct GpuRoom {
  std::string gpu;  ///< as in `GPU 0 (NVIDIA H200)`
  int ranks = 1;
  std::int64_t need_bytes = 0, free_bytes = 0, total_bytes = 0;
  std::int64_t reserve_bytes = 0;  ///< of each rank
};
/// What is wrong, with the table of one rank; empty where it fits.
std::string memory_problem(const GpuRoom& room, const std::string& table);

/// Throws AgreedConfigError where the ranks of a host, which need `bytes` each, together need more than it has
/// available. Collective.
void check_host_memory(Process& process, std::int64_t bytes);

/// `80GiB`, `1.5 GB`, `4096` in bytes. Throws ConfigError, naming `option`, for what is no size.
std::int64_t parse_bytes(std::string_view text, std::string_view option);

}  // namespace annulus
