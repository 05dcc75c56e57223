#include <fmt/format.h>

#include <filesystem>

#include "launch/command.h"
#include "launch/process.h"
#include "runtime/cpu/device.h"
#include "runtime/execute/calibration.h"

namespace annulus {
namespace {

struct Options {
  std::string output = "profile.json";
  std::int64_t threads = 0;
  bool replace = false;
};

Options parse(Arguments arguments) {
  Options options;
  CommandLine line("calibrate",
                   "Measures this machine as a run on as many ranks uses it, in under a minute: rates of matrix "
                   "products, attention and "
                   "memory, and the seconds of every collective. The profile is for the setting log.profile.");
  line.option("--output", options.output, "The profile to write. Default: profile.json");
  line.option("--threads", options.threads, "Threads of a rank. 0: the host's cores, shared evenly by its ranks");
  line.flag("--replace", options.replace, "Replace a profile that is there already");
  line.parse(arguments);
  if (options.threads < 0)
    throw ConfigError(fmt::format("--threads={} is out of range; it must be at least 0", options.threads));
  if (!options.replace && std::filesystem::exists(options.output)) {
    throw ConfigError(fmt::format("{} is there already; give --replace, or another --output", options.output));
  }
  return options;
}

}  // namespace

int run_calibrate(Process& process, Arguments arguments) {
  Options options;
  process.agree([&] { options = parse(arguments); });
  const int threads = process.claim_cores(options.threads);
  CpuDevice device(threads);
  const double begin = now_seconds();
  const HardwareProfile profile =
      calibrate(device, process.world(), {.mode = CalibrationMode::full, .threads = threads});
  process.agree([&] {
    if (process.is_first()) save_hardware_profile(profile, options.output);
  });
  if (process.is_first()) {
    fmt::print("wrote {} in {:.0f} s: {} ranks, {}: {:.1f} GFLOP/s a rank\n", options.output, now_seconds() - begin,
               process.size(), profile.peak_name, profile.peak_flops_per_second / 1e9);
  }
  return 0;
}

}  // namespace annulus
