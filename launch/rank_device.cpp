#include "launch/rank_device.h"

#include <fmt/format.h>

#include <algorithm>

#include "launch/cuda_rank_device.h"
#include "launch/rank_setup.h"
#include "runtime/cpu/device.h"

namespace annulus {
namespace {

/// This rank's share of its host's processors.
class CpuRankDevice final : public RankDevice {
 public:
  CpuRankDevice(Process& process, const RunConfig& config)
      : process_(process),
        progress_(config.communication.progress),
        threads_(process.claim_cores(config.device.threads)),
        device_(threads_) {}

  Device& device() override { return device_; }
  Communicator& world() override { return process_.world(); }
  std::unique_ptr<Device> another() override { return std::make_unique<CpuDevice>(threads_); }
  int threads() const override { return threads_; }
  std::string processor() const override {
    return fmt::format("this CPU, {} thread{}", threads_, threads_ == 1 ? "" : "s");
  }
  ExecutorOptions executor_options() override {
    ExecutorOptions options;
    options.progress = progress_;
    options.shared_memory = process_.shared_memory();
    return options;
  }
  std::int64_t taken_by_libraries() override { return 0; }
  bool abort_collectives() override { return false; }

 private:
  void check_memory(const MemoryNeed& need, std::int64_t) override {
    check_host_memory(process_, need.device_bytes() + need.host_bytes);
  }
  std::string choose_products(const std::vector<const Program*>&) override { return {}; }

  Process& process_;
  Progress progress_;
  int threads_;
  CpuDevice device_;
};

}  // namespace

std::unique_ptr<RankDevice> make_rank_device(Process& process, const RunConfig& config) {
  if (config.device.kind == DeviceKind::cuda) return make_cuda_rank_device(process, config);
  return std::make_unique<CpuRankDevice>(process, config);
}

HardwareProfile measured_profile(Process& process, RankDevice& device, CalibrationMode mode) {
  const WatchedOps watched(process, device);  // for ranks that die or are stopped meanwhile; nothing has a deadline
  std::unique_ptr<Device> measured = device.another();  // which gives its memory back in the end
  const ExecutorOptions options = device.executor_options();
  HardwareProfile profile = calibrate(*measured, process.world(),
                                      {.mode = mode,
                                       .processor = device.processor(),
                                       .transfers = &device.world(),
                                       .progress = options.progress,
                                       .shared_memory = options.shared_memory});
  measured.reset();
  const std::vector<std::int64_t> taken = process.gather(device.taken_by_libraries());
  profile.device_reserve_bytes = *std::max_element(taken.begin(), taken.end());
  profile.host = process.hosts().front();
  return profile;
}

#ifndef ANNULUS_CUDA
std::unique_ptr<RankDevice> make_cuda_rank_device(Process& process, const RunConfig&) {
  process.agree([] {
    throw ConfigError(
        "device.kind=cuda, and this program was built without CUDA; build one with it (cmake --preset cuda && cmake "
        "--build --preset cuda, into build-cuda), or set device.kind=cpu");
  });
  return nullptr;
}

std::vector<std::pair<std::string, std::string>> gpu_library_versions() { return {}; }
#endif

}  // namespace annulus
