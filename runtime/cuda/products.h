#pragma once

#include <cstdint>
#include <memory>

#include "runtime/cuda/device.h"
#include "runtime/execute/kernel.h"
#include "runtime/ops/matmul.h"

struct CUstream_st;

namespace annulus {

/// Matrix products by cuBLASLt, with their epilogues. The algorithm of each shape is the first that the library's
/// heuristic suggests within the workspace.
class CudaProducts {
 public:
  /// Throws DeviceError where the library does not start.
  explicit CudaProducts(FloatProducts float_products);
  ~CudaProducts();

  std::int64_t workspace_bytes(const Matmul& op, OpDefinition::Types inputs);
  void run(const Matmul& op, const KernelArguments& arguments, CUstream_st* stream);

 private:
  struct Library;
  std::unique_ptr<Library> library_;
};

}  // namespace annulus
