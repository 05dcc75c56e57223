#include <cuda_runtime.h>

#include <algorithm>
#include <random>

#include "runtime/cuda/check.h"
#include "runtime/cuda/product_timer.cuh"

namespace annulus {
namespace {

constexpr int kCalls = 7;
constexpr std::int64_t kBlockBytes = std::int64_t{4} << 20;  // of random numbers, repeated

cudaDeviceProp current_gpu() {
  int ordinal = 0;
  cudaDeviceProp properties{};
  check(cudaGetDevice(&ordinal), "the GPU");
  check(cudaGetDeviceProperties(&properties, ordinal), "the GPU");
  return properties;
}

std::vector<std::byte> random_block(DType dtype) {
  std::vector<std::byte> block(kBlockBytes);
  dispatch_stored(dtype, [&]<class T>(T) {
    std::mt19937 engine(1);
    std::uniform_real_distribution<float> draw(-1, 1);
    T* numbers = reinterpret_cast<T*>(block.data());
    std::generate_n(numbers, kBlockBytes / size_of(dtype), [&] { return T(draw(engine)); });
  });
  return block;
}

}  // namespace

std::string name_of_current_gpu() { return current_gpu().name; }

ProductTimer::ProductTimer(cudaStream_t stream) : stream_(stream) {
  check(cudaEventCreate(&begin_), "an event");
  check(cudaEventCreate(&end_), "an event");
  swept_bytes_ = std::size_t(2) * static_cast<std::size_t>(current_gpu().l2CacheSize) + 1;
  swept_ = allocate_on_gpu(static_cast<std::int64_t>(swept_bytes_));
}

ProductTimer::~ProductTimer() {
  cudaFree(swept_);
  cudaFree(memory_);
  if (begin_ != nullptr) cudaEventDestroy(begin_);
  if (end_ != nullptr) cudaEventDestroy(end_);
}

std::byte* ProductTimer::room(std::int64_t bytes) {
  if (bytes > bytes_) {
    check(cudaFree(memory_), "memory");
    memory_ = nullptr, bytes_ = 0, filled_with_ = DType::i32;
    memory_ = allocate_on_gpu(bytes);
    bytes_ = bytes;
  }
  return static_cast<std::byte*>(memory_);
}

ProductOperands ProductTimer::operands(const LibraryProduct& product, const ProductShape& shape) {
  const auto [m, n, k] = shape.sizes;
  const ProductEpilogue& done = product.done();
  const bool adds = done.addend != ProductEpilogue::Addend::none;
  const bool in_place = done.addend == ProductEpilogue::Addend::in_place;
  const bool has_gelu_input =
      done.finish == ProductEpilogue::Finish::gelu_and_input || done.finish == ProductEpilogue::Finish::gelu_slope;
  const std::int64_t result_bytes = m * n * size_of(shape.result);
  std::int64_t used = 0;
  const auto take = [&](std::int64_t bytes) {
    const std::int64_t at = used;
    used += (bytes + 255) / 256 * 256;
    return at;
  };
  const std::int64_t a = take(m * k * size_of(shape.operands)), b = take(k * n * size_of(shape.operands)),
                     bias = take(n * size_of(shape.result)), result = take(result_bytes),
                     gelu_input = has_gelu_input ? take(result_bytes) : 0,
                     addend = in_place ? result
                              : adds   ? take(result_bytes)
                                       : 0,
                     workspace = take(product.workspace_bytes());
  std::byte* memory = room(used);
  if (filled_with_ != shape.operands) {
    const std::vector<std::byte> block = random_block(shape.operands);
    for (std::int64_t at = 0; at < bytes_; at += kBlockBytes) {
      const auto size = static_cast<std::size_t>(std::min(kBlockBytes, bytes_ - at));
      check(cudaMemcpy(memory + at, block.data(), size, cudaMemcpyHostToDevice), "random numbers");
    }
    filled_with_ = shape.operands;
  }
  return {.a = memory + a,
          .b = memory + b,
          .bias = memory + bias,
          .addend = adds ? memory + addend : nullptr,
          .result = memory + result,
          .gelu_input = memory + gelu_input,
          .workspace = memory + workspace};
}

std::optional<double> ProductTimer::seconds(cublasLtHandle_t library, LibraryProduct& product,
                                            const ProductShape& shape) {
  const ProductOperands at = operands(product, shape);
  std::vector<float> milliseconds(kCalls);
  // It also loads what it wants when it is first called.
  if (product.try_to_run(library, at, stream_) != CUBLAS_STATUS_SUCCESS) {
    cudaGetLastError();  // which it may have left for the next launch to find
    return std::nullopt;
  }
  for (float& time : milliseconds) {
    check(cudaMemsetAsync(swept_, 0, swept_bytes_, stream_), "a sweep of the cache");
    check(cudaEventRecord(begin_, stream_), "an event");
    product.run(library, at, stream_);
    check(cudaEventRecord(end_, stream_), "an event");
    check(cudaEventSynchronize(end_), shape.str());
    check(cudaEventElapsedTime(&time, begin_, end_), "an event");
  }
  std::nth_element(milliseconds.begin(), milliseconds.begin() + kCalls / 2, milliseconds.end());
  return static_cast<double>(milliseconds[kCalls / 2]) * 1e-3;
}

}  // namespace annulus
