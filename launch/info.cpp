#include <fmt/format.h>

#include "launch/build_info.h"
#include "launch/command.h"
#include "launch/cores.h"
#include "launch/run_config.h"
#include "runtime/core/host_memory.h"
#include "runtime/cpu/device.h"

namespace annulus {

int run_info(Arguments arguments) {
  bool reference = false;
  CommandLine line("info", "Tells what this program was built of and what this machine offers it.");
  line.flag("--configuration-reference", reference, "Print the page of all settings (docs/configuration.md) instead");
  line.parse(arguments);
  if (reference) {
    fmt::print("{}", configuration_reference());
    return 0;
  }
  for (const auto& [name, version] : build_info()) fmt::print("{:<14} {}\n", name, version);
  const CoreShare share = share_of({launch_cpus()}, 0, quota_cores());
  fmt::print("{:<14} {}\n", "device", CpuDevice(share.threads).description());
  fmt::print("{:<14} {} cores, {:.1f} GiB of memory available\n", "host", share.threads,
             static_cast<double>(available_memory_bytes()) / (1 << 30));
  return 0;
}

}  // namespace annulus
