#include "runtime/cpu/device.h"

#include <sys/mman.h>

#include <cstring>
#include <fstream>
#include <type_traits>

#include "runtime/cpu/half_operands.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/matmul.h"
#include "runtime/cpu/parallel.h"
#include "runtime/ops/op_table.h"

namespace annulus {
namespace {

constexpr std::int64_t kHugePage = std::int64_t{1} << 21;

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unnamed processor";
}

}  // namespace

CpuDevice::CpuDevice([[maybe_unused]] int threads) : products_(std::make_unique<ProductCache>()) {
#ifdef _OPENMP
  if (threads > 0) omp_set_num_threads(threads);
#endif
}

CpuDevice::~CpuDevice() {
  for (const Region& region : regions_) munmap(region.begin, region.bytes);
}

std::string CpuDevice::description() const {
  const int threads = thread_count();
  return "cpu: " + processor_name() + ", " + std::to_string(threads) + (threads == 1 ? " thread" : " threads");
}

std::byte* CpuDevice::allocate(std::int64_t bytes) {
  const std::int64_t whole = (bytes + kHugePage - 1) / kHugePage * kHugePage;
  const std::size_t mapped = static_cast<std::size_t>(whole + kHugePage);
  void* begin = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (begin == MAP_FAILED) {
    throw DeviceError("cannot allocate " + std::to_string(bytes) + " bytes: " + std::strerror(errno) +
                      "; use smaller micro-batches, or more ranks");
  }
  regions_.push_back({begin, mapped});
  const auto address = reinterpret_cast<std::uintptr_t>(begin);
  const auto aligned = (address + kHugePage - 1) / kHugePage * kHugePage;
  std::byte* memory = static_cast<std::byte*>(begin) + (aligned - address);
  madvise(memory, static_cast<std::size_t>(whole), MADV_HUGEPAGE);  // a wish: without it pages are small
  fill(memory, 0, bytes);
  return memory;
}

void CpuDevice::copy_to_device(std::byte* to, const void* from, std::int64_t bytes) {
  if (bytes > 0) std::memcpy(to, from, static_cast<std::size_t>(bytes));  // of nothing an address may be null
}

void CpuDevice::copy_from_device(void* to, const std::byte* from, std::int64_t bytes) {
  if (bytes > 0) std::memcpy(to, from, static_cast<std::size_t>(bytes));
}

void CpuDevice::fill(std::byte* to, std::uint8_t value, std::int64_t bytes) {
  parallel_ranges(bytes, kHugePage, [=](std::int64_t begin, std::int64_t end) {
    std::memset(to + begin, value, static_cast<std::size_t>(end - begin));
  });
}

std::int64_t CpuDevice::workspace_bytes(const OpDefinition& definition, OpDefinition::Types inputs,
                                        OpDefinition::Types outputs) {
  return visit_compute(definition, [&]<class Kind>(const Kind& op) -> std::int64_t {
    if (!kTakesHalves<Kind> && (has_halves(inputs) || has_halves(outputs)))
      return widening_bytes(op, inputs, outputs) + workspace_bytes(op, widened(inputs), widened(outputs));
    if constexpr (std::is_same_v<Kind, Matmul>) {
      return products_->workspace_bytes(op, inputs[0], inputs[1]);
    } else {
      return annulus::workspace_bytes(op, inputs, outputs);
    }
  });
}

void CpuDevice::run(const OpDefinition& definition, const KernelArguments& arguments) {
  visit_compute(definition, [&]<class Kind>(const Kind& op) {
    if (!kTakesHalves<Kind> && (has_halves(arguments.inputs) || has_halves(arguments.outputs)))
      return run_wide(op, arguments, [&](const KernelArguments& wide) { run(op, wide); });
    if constexpr (std::is_same_v<Kind, Matmul>) {
      products_->run(op, arguments);
    } else {
      annulus::run(op, arguments);
    }
  });
}

}  // namespace annulus
