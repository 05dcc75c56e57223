#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <set>

#include "collectives/nccl_communicator.h"
#include "collectives/staged_communicator.h"
#include "launch/cuda_rank_device.h"
#include "launch/gpu_environment.h"
#include "launch/gpu_placement.h"
#include "runtime/core/random.h"

namespace annulus {
namespace {

/// What a device says is missing is for the user to mend, and for all ranks to know of.
void agree_on_device(Process& process, const std::function<void()>& action) {
  process.agree([&] {
    try {
      action();
    } catch (const DeviceError& error) {
      throw ConfigError(error.what());
    }
  });
}

/// The GPUs that every rank sees.
std::vector<RankGpus> gather_gpus(Process& process, const std::vector<CudaGpu>& visible) {
  constexpr std::size_t kMost = 32;  // of a host
  struct Seen {
    std::int32_t count;
    std::array<CudaGpu::Id, kMost> ids;
  };
  Seen mine{static_cast<std::int32_t>(std::min(visible.size(), kMost)), {}};
  for (std::size_t i = 0; i < static_cast<std::size_t>(mine.count); ++i) mine.ids[i] = visible[i].id;
  std::vector<RankGpus> ranks;
  for (const Seen& seen : process.gather(mine))
    ranks.push_back({process.hosts()[ranks.size()], {seen.ids.begin(), seen.ids.begin() + seen.count}});
  return ranks;
}

std::string text_of_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw ConfigError(fmt::format("device.products={}: {}", path, std::strerror(errno)));
  return {std::istreambuf_iterator<char>(file), {}};
}

class CudaRankDevice final : public RankDevice {
 public:
  CudaRankDevice(Process& process, const RunConfig& config)
      : process_(process), config_(config.device), threads_(process.claim_cores(config.device.threads)) {
    place();
    connect();
    free_at_start_ = device_->memory().free;
  }

  Device& device() override { return *device_; }
  Communicator& world() override { return staged_ ? *staged_ : *nccl_.communicator; }
  std::unique_ptr<Device> another() override {
    CudaOptions silent = options_;
    silent.tell = {};
    silent.unchosen_products = UnchosenProducts::measured;
    auto device = std::make_unique<CudaDevice>(silent);
    if (!products_.choices.empty()) device->use_products(products_, {}, "what was chosen");
    return device;
  }
  int threads() const override { return threads_; }
  std::string processor() const override { return "this GPU, " + name_; }
  ExecutorOptions executor_options() override {
    ExecutorOptions options;
    // Staged copies are the device's, which the computing thread alone may use.
    options.progress = staged_ ? Progress::poll : Progress::thread;
    options.execution = staged_ ? Execution::host : config_.execution;
    return options;
  }
  std::int64_t taken_by_libraries() override {
    const CudaMemory now = device_->memory();
    return place_.ranks.size() > 1 ? 0 : std::max<std::int64_t>(0, free_at_start_ - now.free - now.allocated);
  }
  bool abort_collectives() override {
    if (staged_) return false;
    nccl_.abort();
    return true;
  }

 private:
  std::string gpu() const { return fmt::format("GPU {} ({})", place_.ordinal, name_); }
  void place();
  void connect();
  void check_memory(const MemoryNeed& need, std::int64_t device_reserve_bytes) override;
  std::string choose_products(const std::vector<const Program*>& programs) override;

  Process& process_;
  DeviceConfig config_;
  int threads_;
  GpuPlace place_;
  std::string name_;
  CudaOptions options_;
  std::unique_ptr<CudaDevice> device_;
  std::unique_ptr<Communicator> staged_;
  NcclWorld nccl_;
  ProductTable products_;  // of all ranks
  std::int64_t free_at_start_ = 0;
};

void CudaRankDevice::place() {
  std::vector<CudaGpu> visible;
  agree_on_device(process_, [&] { visible = cuda_gpus(); });
  const std::vector<RankGpus> all = gather_gpus(process_, visible);
  const GpuSharing sharing = config_.share_gpu ? GpuSharing::allowed : GpuSharing::refused;
  process_.agree([&] { place_ = place_on_gpus(all, sharing)[static_cast<std::size_t>(process_.rank())]; });
  name_ = visible[static_cast<std::size_t>(place_.ordinal)].name;
  options_ = {.ordinal = place_.ordinal,
              .float_products = config_.float_products,
              .determinism = config_.deterministic ? Determinism::bitwise : Determinism::any,
              .tell = [this](const std::string& what) {
                if (process_.is_first()) fmt::print("{}\n", what);
              }};
  agree_on_device(process_, [&] { device_ = std::make_unique<CudaDevice>(options_); });
}

void CudaRankDevice::connect() {
  std::unique_ptr<Communicator> host = process_.world().split(0, process_.rank());
  if (config_.communication == GpuCommunication::staged) {
    const auto bytes_at = [](const void* memory) { return static_cast<const std::byte*>(memory); };
    staged_ = staged_communicator(
        std::move(host),
        {.to_host = [this, bytes_at](void* to, const void* from,
                                     std::int64_t bytes) { device_->copy_from_device(to, bytes_at(from), bytes); },
         .to_device = [this](
                          void* to, const void* from,
                          std::int64_t bytes) { device_->copy_to_device(static_cast<std::byte*>(to), from, bytes); }});
    return;
  }
  GpuEnvironment environment;
  process_.agree([&] {
    environment = gpu_environment(config_, process_.rank(), [](const char* name) { return std::getenv(name); });
  });
  apply(environment);
  if (process_.is_first()) {
    for (const std::string& remark : environment.remarks) fmt::print("{}\n", remark);
  }
  try {
    nccl_ = nccl_world(std::move(host), nccl_library(place_.ordinal));
  } catch (const CollectiveError& error) {
    throw CollectiveError(
        fmt::format("NCCL does not start on {}: {}; device.communication=staged does without it", gpu(), error.what()));
  }
}

std::string CudaRankDevice::choose_products(const std::vector<const Program*>& programs) {
  const std::vector<std::uint64_t> machines = process_.gather(stream_id(device_->product_machine()));
  const bool alike = std::set(machines.begin(), machines.end()).size() == 1;
  const std::string& file = config_.products;
  if (!alike && file.empty()) {
    if (process_.is_first())
      fmt::print("ranks have different GPUs: each product takes the algorithm cuBLASLt suggests\n");
    return {};
  }
  std::vector<ProductShape> shapes;
  for (const Program* program : programs) {
    const std::vector<ProductShape> all = products_of(*program);
    shapes.insert(shapes.end(), all.begin(), all.end());
  }
  std::string text;
  agree_on_device(process_, [&] {
    if (!process_.is_first()) return;
    const std::string where = "device.products=" + file;
    if (!file.empty()) device_->use_products(parse_product_table(text_of_file(file), where), {}, where);
    text = to_json(device_->choose_products(shapes));
  });
  text = process_.text_of(0, std::move(text));
  agree_on_device(process_, [&] {
    products_ = parse_product_table(text, "what rank 0 chose");
    device_->use_products(products_, shapes, "what rank 0 chose");
  });
  if (process_.is_first()) fmt::print("{}", describe(products_));
  return text;
}

void CudaRankDevice::check_memory(const MemoryNeed& need, std::int64_t device_reserve_bytes) {
  const std::vector<std::int64_t> needs = process_.gather(need.device_bytes());
  const CudaMemory memory = device_->memory();
  GpuRoom room{.gpu = gpu(),
               .ranks = static_cast<int>(place_.ranks.size()),
               .free_bytes = memory.free,
               .total_bytes = memory.total,
               .reserve_bytes = std::max(device_reserve_bytes, kLeastReserveBytes)};
  for (const int rank : place_.ranks) room.need_bytes += needs[static_cast<std::size_t>(rank)];
  process_.agree([&] {
    if (const std::string problem = memory_problem(room, need.table); !problem.empty()) throw ConfigError(problem);
  });
  check_host_memory(process_, need.host_bytes);
}

}  // namespace

std::unique_ptr<RankDevice> make_cuda_rank_device(Process& process, const RunConfig& config) {
  return std::make_unique<CudaRankDevice>(process, config);
}

std::vector<std::pair<std::string, std::string>> gpu_library_versions() {
  auto versions = cuda_versions();
  versions.emplace_back("NCCL", nccl_version());
  return versions;
}

}  // namespace annulus
