#include <cuda_runtime.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "runtime/cuda/attention.h"
#include "runtime/cuda/check.h"
#include "runtime/cuda/device.h"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/launch.h"
#include "runtime/cuda/planned_workspace.h"
#include "runtime/cuda/products.h"
#include "runtime/cuda/requirements.h"
#include "runtime/cuda/streams.h"

namespace annulus {
namespace {

constexpr std::int64_t kStagingBytes = std::int64_t{8} << 20;

CudaMachine query_machine() {
  CudaMachine machine;
  check(cudaDriverGetVersion(&machine.driver_version), "the driver's version");
  check(cudaRuntimeGetVersion(&machine.runtime_version), "the runtime's version");
  if (cudaGetDeviceCount(&machine.devices) != cudaSuccess) machine.devices = 0;
  return machine;
}

cudaDeviceProp properties_of(int ordinal) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, ordinal), fmt::format("GPU {}", ordinal));
  return properties;
}

}  // namespace

struct CudaDevice::State {
  int ordinal = 0;
  cudaDeviceProp properties{};
  std::unique_ptr<CudaStreams> streams;
  cudaStream_t stream = nullptr;  // on which it computes
  std::byte* staging = nullptr;   // pinned
  std::vector<std::byte*> regions;
  std::int64_t allocated_bytes = 0;
  std::unique_ptr<CudaProducts> products;
  std::unique_ptr<CudaAttention> attention;

  explicit State(const CudaOptions& options) : ordinal(options.ordinal) {
    if (const auto missing = missing_device(query_machine(), ordinal)) throw DeviceError(*missing);
    properties = properties_of(ordinal);
    const int capability = properties.major * 10 + properties.minor;
    if (const auto unusable = unusable_device(properties.name, capability)) throw DeviceError(*unusable);
    select();
    streams = std::make_unique<CudaStreams>(ordinal);
    stream = streams->native_main();
    void* pinned = nullptr;
    check(cudaMallocHost(&pinned, kStagingBytes), "pinned memory of the host");
    staging = static_cast<std::byte*>(pinned);
    products = std::make_unique<CudaProducts>(options);
    attention = std::make_unique<CudaAttention>(CudnnOptions{.determinism = options.determinism}, options.tell);
  }
  ~State() {
    attention.reset();
    products.reset();
    for (std::byte* region : regions) cudaFree(region);
    cudaFreeHost(staging);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  /// The runtime's choice of a GPU is the thread's; calls come from the thread that runs the program.
  void select() const { check(cudaSetDevice(ordinal), fmt::format("GPU {}", ordinal)); }
  void finish(const std::string& what) const { check(cudaStreamSynchronize(stream), what); }
};

CudaDevice::CudaDevice(const CudaOptions& options) : state_(std::make_unique<State>(options)) {}
CudaDevice::~CudaDevice() = default;

std::string CudaDevice::description() const {
  const cudaDeviceProp& properties = state_->properties;
  return fmt::format("cuda: {}, {} multiprocessors, {:.0f} GiB", properties.name, properties.multiProcessorCount,
                     static_cast<double>(properties.totalGlobalMem) / (1 << 30));
}

CudaMemory CudaDevice::memory() const {
  state_->select();
  std::size_t free_bytes = 0, total_bytes = 0;
  check(cudaMemGetInfo(&free_bytes, &total_bytes), "the GPU's memory");
  return {static_cast<std::int64_t>(free_bytes), static_cast<std::int64_t>(total_bytes), state_->allocated_bytes};
}

std::string CudaDevice::product_machine() const {
  state_->select();
  return state_->products->machine();
}

const ProductTable& CudaDevice::choose_products(const std::vector<ProductShape>& shapes) {
  state_->select();
  return state_->products->choose(shapes, state_->stream);
}

void CudaDevice::use_products(const ProductTable& table, const std::vector<ProductShape>& shapes,
                              const std::string& where) {
  state_->select();
  state_->products->use(table, shapes, where);
}

std::byte* CudaDevice::allocate(std::int64_t bytes) {
  state_->select();
  state_->regions.push_back(static_cast<std::byte*>(allocate_on_gpu(bytes)));
  state_->allocated_bytes += bytes;
  fill(state_->regions.back(), 0, bytes);
  return state_->regions.back();
}

void CudaDevice::copy_to_device(std::byte* to, const void* from, std::int64_t bytes) {
  state_->select();
  for (std::int64_t done = 0; done < bytes; done += kStagingBytes) {
    const auto size = static_cast<std::size_t>(std::min(kStagingBytes, bytes - done));
    std::memcpy(state_->staging, static_cast<const std::byte*>(from) + done, size);
    check(cudaMemcpyAsync(to + done, state_->staging, size, cudaMemcpyHostToDevice, state_->stream),
          "a copy to the GPU");
    state_->finish("a copy to the GPU");
  }
}

void CudaDevice::copy_from_device(void* to, const std::byte* from, std::int64_t bytes) {
  state_->select();
  for (std::int64_t done = 0; done < bytes; done += kStagingBytes) {
    const auto size = static_cast<std::size_t>(std::min(kStagingBytes, bytes - done));
    check(cudaMemcpyAsync(state_->staging, from + done, size, cudaMemcpyDeviceToHost, state_->stream),
          "a copy from the GPU");
    state_->finish("a copy from the GPU");
    std::memcpy(static_cast<std::byte*>(to) + done, state_->staging, size);
  }
}

void CudaDevice::fill(std::byte* to, std::uint8_t value, std::int64_t bytes) {
  state_->select();
  check(cudaMemsetAsync(to, value, static_cast<std::size_t>(bytes), state_->stream), "a fill");
  state_->finish("a fill");
}

std::int64_t CudaDevice::workspace_bytes(const OpDefinition& definition, OpDefinition::Types inputs,
                                         OpDefinition::Types outputs) {
  state_->select();  // cuDNN builds its graphs for the thread's GPU
  return visit_compute(definition, [&]<class Kind>(const Kind& op) -> std::int64_t {
    if constexpr (std::is_same_v<Kind, Matmul>) {
      return kProductWorkspaceBytes;
    } else if constexpr (std::is_base_of_v<RingStep<Kind::kKind>, Kind>) {
      return state_->attention->workspace_bytes(op, inputs, outputs);
    } else {
      return device_workspace_bytes(op, inputs, outputs);
    }
  });
}

Streams* CudaDevice::streams() { return state_->streams.get(); }

void CudaDevice::run(const OpDefinition& definition, const KernelArguments& arguments) {
  enqueue(state_->streams->main(), definition, arguments);
  state_->finish(std::string(definition.name()));
}

void CudaDevice::enqueue(Stream* stream, const OpDefinition& definition, const KernelArguments& arguments) {
  state_->select();
  auto* const native = reinterpret_cast<cudaStream_t>(stream);
  visit_compute(definition, [&]<class Kind>(const Kind& op) {
    if constexpr (std::is_same_v<Kind, Matmul>) {
      state_->products->run(op, arguments, native);
    } else if constexpr (std::is_base_of_v<RingStep<Kind::kKind>, Kind>) {
      state_->attention->run(op, arguments, native);
    } else {
      run_kernel(op, arguments, native);
    }
  });
}

std::vector<CudaGpu> cuda_gpus() {
  const CudaMachine machine = query_machine();
  if (const auto missing = missing_device(machine, 0)) throw DeviceError(*missing);
  std::vector<CudaGpu> gpus(static_cast<std::size_t>(machine.devices));
  for (int ordinal = 0; ordinal < machine.devices; ++ordinal) {
    CudaGpu& gpu = gpus[static_cast<std::size_t>(ordinal)];
    const cudaDeviceProp properties = properties_of(ordinal);
    gpu.name = properties.name;
    static_assert(sizeof(properties.uuid) == sizeof(gpu.id));
    std::memcpy(gpu.id.data(), &properties.uuid, sizeof(gpu.id));
  }
  return gpus;
}

}  // namespace annulus
