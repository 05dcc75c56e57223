#pragma once

#include <cublasLt.h>

#include <memory>
#include <string>
#include <vector>

#include "runtime/cuda/device.h"
#include "runtime/cuda/product_choices.h"

namespace annulus {

void check_cublas(cublasStatus_t status, const std::string& what);

/// The library's descriptor of a matrix of `rows` x `columns`, which to it, who counts columns first, is the transpose.
class ProductLayout {
 public:
  ProductLayout(DType dtype, std::int64_t rows, std::int64_t columns);
  ~ProductLayout() { cublasLtMatrixLayoutDestroy(handle_); }
  ProductLayout(const ProductLayout&) = delete;
  ProductLayout& operator=(const ProductLayout&) = delete;
  cublasLtMatrixLayout_t handle() const { return handle_; }

 private:
  cublasLtMatrixLayout_t handle_ = nullptr;
};

/// Addresses of one call.
struct ProductOperands {
  const void *a = nullptr, *b = nullptr, *bias = nullptr;
  const void* addend = nullptr;  ///< null for a product that adds nothing
  void* result = nullptr;
  void* gelu_input = nullptr;  ///< written or read
  void* workspace = nullptr;
};

/// A product made ready, but for its algorithm. The library's left operand is our right one.
class LibraryProduct {
 public:
  LibraryProduct(const ProductShape& shape, const ProductEpilogue& done, FloatProducts float_products);
  ~LibraryProduct() { cublasLtMatmulDescDestroy(operation_); }
  LibraryProduct(const LibraryProduct&) = delete;
  LibraryProduct& operator=(const LibraryProduct&) = delete;

  const ProductEpilogue& done() const { return done_; }
  std::int64_t workspace_bytes() const { return workspace_bytes_; }

  /// The library's suggestions within the workspace; empty where it does no such product.
  std::vector<cublasLtMatmulHeuristicResult_t> suggestions(cublasLtHandle_t library, Determinism determinism,
                                                           std::int64_t workspace, int most) const;
  void take(const cublasLtMatmulHeuristicResult_t& suggestion);
  /// False where the library cannot.
  bool take(cublasLtHandle_t library, const ProductAlgorithm& algorithm);
  /// What the library says to being asked to run it.
  cublasStatus_t try_to_run(cublasLtHandle_t library, const ProductOperands& operands, cudaStream_t stream);
  void run(cublasLtHandle_t library, const ProductOperands& operands, cudaStream_t stream) {
    check_cublas(try_to_run(library, operands, stream), shape_.str());
  }

 private:
  template <class T>
  void set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    check_cublas(cublasLtMatmulDescSetAttribute(operation_, attribute, &value, sizeof(value)),
                 "an attribute of the product " + shape_.str());
  }

  ProductShape shape_;
  ProductEpilogue done_;
  cublasComputeType_t compute_;
  ProductLayout a_, b_, c_;
  cublasLtMatmulDesc_t operation_ = nullptr;
  cublasLtMatmulAlgo_t algorithm_{};
  std::int64_t workspace_bytes_ = 0;
};

/// The description of an algorithm that the library suggested.
ProductAlgorithm description_of(const cublasLtMatmulAlgo_t& algorithm);

}  // namespace annulus
