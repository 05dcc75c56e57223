#include <fmt/format.h>

#include <cstdio>
#include <filesystem>

#include "launch/command.h"
#include "launch/rank_device.h"
#include "runtime/training/atomic_file.h"

namespace annulus {
namespace {

struct Options {
  std::string output = "profile.json";
  std::int64_t threads = 0;
  std::string progress = "thread";
  bool quick = false;
  bool replace = false;
  std::string device = "cpu", communication = "nccl";
  bool share_gpu = false;
};

Options parse(Arguments arguments) {
  Options options;
  CommandLine line("calibrate",
                   "Measures this machine as a run on as many ranks uses it, in under a minute: rates of matrix "
                   "products, attention and "
                   "memory, and the seconds of every collective. The profile is for the setting log.profile.");
  line.option("--output", options.output, "The profile to write. Default: profile.json");
  line.option("--threads", options.threads, "Threads of a rank. 0: the host's cores, shared evenly by its ranks");
  line.option("--progress", options.progress, "What moves transfers on: thread or poll, as communication.progress");
  line.option("--device", options.device, "What computes: cpu or cuda, as device.kind");
  line.option("--communication", options.communication, "GPUs: nccl or staged, as device.communication");
  line.flag("--share-gpu", options.share_gpu, "GPUs: as device.share_gpu, to test with");
  line.flag("--quick", options.quick, "Measure only what a first run without a profile measures, in seconds");
  line.flag("--replace", options.replace, "Replace a profile that is there already");
  line.parse(arguments);
  if (options.threads < 0)
    throw ConfigError(fmt::format("--threads={} is out of range; it must be at least 0", options.threads));
  const auto check = [](const char* option, const std::string& value, const char* one, const char* other) {
    if (value != one && value != other)
      throw ConfigError(fmt::format("{}={} is not known; use {} or {}", option, value, one, other));
  };
  check("--progress", options.progress, "thread", "poll");
  check("--device", options.device, "cpu", "cuda");
  check("--communication", options.communication, "nccl", "staged");
  if (!options.replace && std::filesystem::exists(options.output)) {
    throw ConfigError(fmt::format("{} is there already; give --replace, or another --output", options.output));
  }
  return options;
}

/// The configuration of a run as the one that is measured.
RunConfig config_of(const Options& options) {
  RunConfig config;
  config.device.kind = options.device == "cuda" ? DeviceKind::cuda : DeviceKind::cpu;
  config.device.threads = options.threads;
  config.device.communication = options.communication == "staged" ? GpuCommunication::staged : GpuCommunication::nccl;
  config.device.share_gpu = options.share_gpu;
  config.communication.progress = options.progress == "poll" ? Progress::poll : Progress::thread;
  return config;
}

/// A number and the prefix of its unit, as in `1.2 M`.
std::string scaled(double value, double base = 1000) {
  static constexpr const char* kPrefixes[] = {"", "k", "M", "G", "T"};
  if (value < 0.95) return fmt::format("{:.0f} m", 1000 * value);
  std::size_t prefix = 0;
  while (value >= base && prefix + 1 < std::size(kPrefixes)) {
    value /= base;
    ++prefix;
  }
  return fmt::format("{:.{}f} {}", value, value < 9.95 && prefix > 0 ? 1 : 0, kPrefixes[prefix]);
}

void print_rates(std::string_view name, const RateCurve& curve, const char* size_unit, const char* unit) {
  std::string cells;
  for (const auto& [size, rate] : curve.points())
    cells += fmt::format("  {}{}: {}{}/s", scaled(size), size_unit, scaled(rate), unit);
  fmt::print("{:<22}{}\n", name, cells);
}

void print(const HardwareProfile& profile) {
  fmt::print("{}; {} on {}\n", profile.name, profile.device, profile.host);
  fmt::print("{:<22}  {}FLOP/s a rank ({})\n", "peak", scaled(profile.peak_flops_per_second), profile.peak_name);
  fmt::print("{:<22}  {:.2f} us\n", "starting an op", profile.op_overhead_seconds * 1e6);
  for (const OverlapCost& cost : profile.overlap)
    fmt::print("{:<22}  of {:.1f} us takes {:.1f} us, and slows the compute by {:.1f} us\n", "a transfer beside it",
               cost.alone_seconds * 1e6, cost.beside_seconds * 1e6, cost.lost_seconds * 1e6);
  if (profile.product_bandwidth > 0)
    fmt::print("{:<22}  {}B/s\n", "matrices of products", scaled(profile.product_bandwidth));
  for (const auto& [dtype, curve] : profile.products)
    print_rates(fmt::format("products {}", name_of(dtype)), curve, "FLOP", "FLOP");
  for (const auto& [dtype, curve] : profile.attention_forward)
    print_rates(fmt::format("attention {}", name_of(dtype)), curve, " keys", "FLOP");
  for (const auto& [dtype, curve] : profile.attention_backward)
    print_rates(fmt::format("attention gradient {}", name_of(dtype)), curve, " keys", "FLOP");
  fmt::print("{:<22}  {:.2f} ns, gradient {:.2f} ns\n", "attention, a pair",
             profile.attention_forward_pair_seconds * 1e9, profile.attention_backward_pair_seconds * 1e9);
  for (const auto& [kind, curve] : profile.kernels) print_rates(kind, curve, "B", "B");
  print_rates("touched so many B ago", profile.after_bytes, "B", "B");
  print_rates("touched so many s ago", profile.after_seconds, "s", "B");
  for (const auto& [kind, seconds] : profile.far_seconds_per_byte)
    fmt::print("{:<22}  {:.0f} us/MB longer\n", "far, " + kind, seconds * 1e12);
  for (const auto& [key, curve] : profile.collectives) {
    std::string cells;
    for (const auto& [bytes, seconds] : curve.points())
      cells += fmt::format("  {}B: {:.1f} us", scaled(bytes, 1024), seconds * 1e6);
    fmt::print("{:<54}{}\n",
               fmt::format("{}{} of {} ranks on {}, {}", name_of(key.kind),
                           key.operands == Operands::in_place ? " in place" : "", key.ranks,
                           key.hosts == 1 ? "one host" : fmt::format("{} hosts", key.hosts), name_of(key.transport)),
               cells);
  }
}

}  // namespace

int run_calibrate(Process& process, Arguments arguments) {
  Options options;
  process.agree([&] {
    options = parse(arguments);
    if (process.is_first()) const AtomicFile writable(options.output, Existing::replace);  // or a minute were in vain
  });
  const std::unique_ptr<RankDevice> device = make_rank_device(process, config_of(options));
  if (process.is_first()) {
    fmt::print("measuring {} ranks\n", process.size());
    std::fflush(stdout);
  }
  const double begin = now_seconds();
  const HardwareProfile profile =
      measured_profile(process, *device, options.quick ? CalibrationMode::quick : CalibrationMode::full);
  process.agree([&] {
    if (process.is_first()) save_hardware_profile(profile, options.output);
  });
  if (process.is_first()) {
    print(profile);
    fmt::print("wrote {} in {:.0f} s: {} ranks, {}: {:.1f} GFLOP/s a rank\n", options.output, now_seconds() - begin,
               process.size(), profile.peak_name, profile.peak_flops_per_second / 1e9);
  }
  return 0;
}

}  // namespace annulus
