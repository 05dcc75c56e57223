#pragma once

#include <cstdint>
#include <memory>

#include "runtime/execute/kernel.h"
#include "runtime/ops/matmul.h"

namespace annulus {

/// The matrix products of one device: a prepared product a kind and size, made when it is first asked for. Products of
/// f32 go to oneDNN, which has none of f64: these are our own. Not for use by several threads at once.
class ProductCache {
 public:
  ProductCache();
  ~ProductCache();
  ProductCache(const ProductCache&) = delete;
  ProductCache& operator=(const ProductCache&) = delete;

  /// Scratch memory that `run` wants, in bytes. Prepares the product. Throws DeviceError where the library cannot.
  std::int64_t workspace_bytes(const Matmul& op, const ValueType& a, const ValueType& b);
  void run(const Matmul& op, const KernelArguments& arguments);

 private:
  struct Library;
  std::unique_ptr<Library> library_;
};

}  // namespace annulus
