#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runtime/cuda/cublaslt.cuh"

namespace annulus {

std::string name_of_current_gpu();

/// Times products on the current GPU, on random numbers in memory of its own, with nothing of them in the cache.
class ProductTimer {
 public:
  explicit ProductTimer(cudaStream_t stream);
  ~ProductTimer();
  ProductTimer(const ProductTimer&) = delete;
  ProductTimer& operator=(const ProductTimer&) = delete;

  /// Median of a few calls; nothing where the library refuses the first.
  std::optional<double> seconds(cublasLtHandle_t library, LibraryProduct& product, const ProductShape& shape);

 private:
  /// Device memory that grows to what is asked for.
  std::byte* room(std::int64_t bytes);
  ProductOperands operands(const LibraryProduct& product, const ProductShape& shape);

  cudaStream_t stream_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  void* memory_ = nullptr;
  std::int64_t bytes_ = 0;
  void* swept_ = nullptr;  ///< written before each call: larger than the cache
  std::size_t swept_bytes_ = 0;
  DType filled_with_ = DType::i32;  ///< what the memory's numbers are; i32 for none
};

}  // namespace annulus
