#pragma once

#include <cstdint>
#include <memory>

#include "runtime/cuda/device.h"
#include "runtime/cuda/product_choices.h"

struct CUstream_st;

namespace annulus {

/// Matrix products by cuBLASLt, with as much of their epilogues as it does; our kernels do the rest. A product's
/// algorithm is the one that a table has for it; else as the options have it.
class CudaProducts {
 public:
  /// Throws DeviceError where the library does not start.
  explicit CudaProducts(const CudaOptions& options);
  ~CudaProducts();

  /// What algorithms are chosen for: the current device, and the library.
  std::string machine() const;
  /// Completes the table for these shapes: measures on the current device, with memory of its own for as long as it
  /// takes. Returns all of it.
  const ProductTable& choose(const std::vector<ProductShape>& shapes, CUstream_st* stream);
  /// Takes the table's algorithms from now on. Throws ConfigError, naming `where` the table stands, where it is of
  /// another GPU or library, lacks one of the shapes, or has what this library cannot do.
  void use(const ProductTable& table, const std::vector<ProductShape>& shapes, const std::string& where);

  void run(const Matmul& op, const KernelArguments& arguments, CUstream_st* stream);

 private:
  struct Cache;
  std::unique_ptr<Cache> cache_;
};

}  // namespace annulus
