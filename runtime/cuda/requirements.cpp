#include "runtime/cuda/requirements.h"

#include <fmt/format.h>

namespace annulus {
namespace {

std::string version(int number) { return fmt::format("{}.{}", number / 1000, number % 1000 / 10); }
double gigabytes(std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 30); }

}  // namespace

std::optional<std::string> missing_device(const CudaMachine& machine, int ordinal) {
  if (machine.driver_version == 0) {
    return "no GPU: the NVIDIA driver (libcuda.so.1) is not there; install it, or use device.kind=cpu";
  }
  // Within one major version a program runs on any driver of that version.
  if (machine.driver_version / 1000 < machine.runtime_version / 1000) {
    return fmt::format(
        "the driver runs CUDA up to {}, and this build needs {}; install a newer driver, or build with {}",
        version(machine.driver_version), version(machine.runtime_version), version(machine.driver_version));
  }
  if (machine.devices == 0)
    return "no GPU is visible to this process; look at CUDA_VISIBLE_DEVICES, or use device.kind=cpu";
  if (ordinal >= machine.devices) {
    return fmt::format("GPU {} is asked for, and {} {} visible on this host; start {} {} on it", ordinal,
                       machine.devices, machine.devices == 1 ? "is" : "are", machine.devices,
                       machine.devices == 1 ? "rank" : "ranks");
  }
  return std::nullopt;
}

std::optional<std::string> unusable_device(const std::string& name, int capability) {
  if (capability >= kOldestCapability) return std::nullopt;
  return fmt::format(
      "{} has compute capability {}.{}, and this build's kernels need {}.{}; use a newer GPU, or device.kind=cpu", name,
      capability / 10, capability % 10, kOldestCapability / 10, kOldestCapability % 10);
}

std::string too_little_memory(std::int64_t bytes, std::int64_t free_bytes, std::int64_t total_bytes) {
  return fmt::format(
      "cannot allocate {} bytes ({:.2f} GiB): {:.2f} of the GPU's {:.2f} GiB are free; use smaller micro-batches, more "
      "ranks, or end what else uses the GPU",
      bytes, gigabytes(bytes), gigabytes(free_bytes), gigabytes(total_bytes));
}

}  // namespace annulus
