#include <cublasLt.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "runtime/cuda/kernels.h"
#include "runtime/cuda/planned_workspace.h"
#include "runtime/cuda/products.h"

namespace annulus {
namespace {

constexpr std::uint32_t kUsualAlignment = 16;  // of operands in an arena

void check(cublasStatus_t status, const std::string& what) {
  if (status != CUBLAS_STATUS_SUCCESS) throw DeviceError(what + ": cuBLASLt says " + cublasLtGetStatusString(status));
}

/// What the epilogue of one product is done by.
enum class BiasBy : std::uint8_t { nobody, library, kernel };

struct ProductKey {
  Matmul::Form form;
  Matmul::Sizes sizes;
  DType dtype;
  Matmul::Bias bias;
  Matmul::Addend addend;
  std::uint32_t alignment;
  auto tie() const { return std::tuple(form, sizes.m, sizes.n, sizes.k, dtype, bias, addend, alignment); }
  bool operator<(const ProductKey& other) const { return tie() < other.tie(); }
};

std::string describe(const ProductKey& key) {
  return fmt::format("the product {} of m={} n={} k={} {}", Matmul(key.form, key.bias, key.addend).attributes(),
                     key.sizes.m, key.sizes.n, key.sizes.k, name_of(key.dtype));
}

cudaDataType_t type_of(DType dtype) { return dtype == DType::f64 ? CUDA_R_64F : CUDA_R_32F; }

/// The library's descriptor of a matrix of `rows` x `columns`, which to it, who counts columns first, is the transpose.
class Layout {
 public:
  Layout(DType dtype, std::int64_t rows, std::int64_t columns) {
    check(cublasLtMatrixLayoutCreate(&handle_, type_of(dtype), static_cast<std::uint64_t>(columns),
                                     static_cast<std::uint64_t>(rows), columns),
          "a matrix layout");
  }
  ~Layout() { cublasLtMatrixLayoutDestroy(handle_); }
  Layout(const Layout&) = delete;
  Layout& operator=(const Layout&) = delete;
  cublasLtMatrixLayout_t handle() const { return handle_; }

 private:
  cublasLtMatrixLayout_t handle_ = nullptr;
};

/// A product made ready. The library's left operand is our right one.
struct Product {
  Product(const ProductKey& key, cublasComputeType_t compute, BiasBy by)
      : a(key.dtype, key.form == Matmul::Form::tn ? key.sizes.k : key.sizes.m,
          key.form == Matmul::Form::tn ? key.sizes.m : key.sizes.k),
        b(key.dtype, key.form == Matmul::Form::nt ? key.sizes.n : key.sizes.k,
          key.form == Matmul::Form::nt ? key.sizes.k : key.sizes.n),
        c(key.dtype, key.sizes.m, key.sizes.n),
        bias_by(by) {
    check(cublasLtMatmulDescCreate(&operation, compute, type_of(key.dtype)), describe(key));
    set(CUBLASLT_MATMUL_DESC_TRANSA, key.form == Matmul::Form::nt ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_TRANSB, key.form == Matmul::Form::tn ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (by == BiasBy::library) set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
  }
  ~Product() { cublasLtMatmulDescDestroy(operation); }
  Product(const Product&) = delete;
  Product& operator=(const Product&) = delete;

  template <class T>
  void set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    check(cublasLtMatmulDescSetAttribute(operation, attribute, &value, sizeof(value)), "a product's attribute");
  }

  Layout a, b, c;
  BiasBy bias_by;
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
  std::int64_t workspace_bytes = 0;
};

/// The largest power of two up to the usual alignment that divides all addresses.
std::uint32_t alignment_of(const KernelArguments& arguments) {
  std::uintptr_t bits = kUsualAlignment | reinterpret_cast<std::uintptr_t>(arguments.outputs[0].data);
  for (const Tensor& input : arguments.inputs) bits |= reinterpret_cast<std::uintptr_t>(input.data);
  return static_cast<std::uint32_t>(bits & (~bits + 1));
}

ProductKey key_of(const Matmul& op, const Shape& a, const Shape& b, DType dtype, std::uint32_t alignment) {
  return {op.form(), op.sizes(a, b), dtype, op.bias(), op.addend(), alignment};
}

}  // namespace

struct CudaProducts::Library {
  cublasLtHandle_t handle = nullptr;
  FloatProducts float_products;
  std::map<ProductKey, std::unique_ptr<Product>> products;

  explicit Library(FloatProducts how) : float_products(how) { check(cublasLtCreate(&handle), "products"); }
  ~Library() {
    products.clear();
    cublasLtDestroy(handle);
  }

  cublasComputeType_t compute_type(DType dtype) const {
    if (dtype == DType::f64) return CUBLAS_COMPUTE_64F;
    return float_products == FloatProducts::tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  }

  /// The library's first suggestion, or null where it has none.
  std::unique_ptr<Product> prepare(const ProductKey& key, BiasBy by, std::int64_t workspace) const {
    auto product = std::make_unique<Product>(key, compute_type(key.dtype), by);
    cublasLtMatmulPreference_t preference = nullptr;
    check(cublasLtMatmulPreferenceCreate(&preference), describe(key));
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
      check(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value)), describe(key));
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<std::uint64_t>(workspace));
    for (auto attribute : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                           CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
      prefer(attribute, key.alignment);
    }
    cublasLtMatmulHeuristicResult_t suggestion{};
    int count = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(handle, product->operation, product->b.handle(), product->a.handle(),
                                       product->c.handle(), product->c.handle(), preference, 1, &suggestion, &count);
    cublasLtMatmulPreferenceDestroy(preference);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED || (status == CUBLAS_STATUS_SUCCESS && count == 0)) return nullptr;
    check(status, describe(key));
    product->algorithm = suggestion.algo;
    product->workspace_bytes = static_cast<std::int64_t>(suggestion.workspaceSize);
    return product;
  }

  /// Where the library has no such epilogue, the bias is added behind the product.
  Product& find(const ProductKey& key, std::int64_t workspace) {
    std::unique_ptr<Product>& product = products[key];
    if (product && product->workspace_bytes <= workspace) return *product;
    if (key.bias == Matmul::Bias::none) {
      product = prepare(key, BiasBy::nobody, workspace);
    } else {
      product = prepare(key, BiasBy::library, workspace);
      if (!product) product = prepare(key, BiasBy::kernel, workspace);
    }
    if (!product) throw DeviceError("cuBLASLt has no algorithm for " + describe(key));
    return *product;
  }
};

CudaProducts::CudaProducts(FloatProducts float_products) : library_(std::make_unique<Library>(float_products)) {}
CudaProducts::~CudaProducts() = default;

std::int64_t CudaProducts::workspace_bytes(const Matmul& op, OpDefinition::Types inputs) {
  const ProductKey key = key_of(op, inputs[0].shape, inputs[1].shape, inputs[0].dtype, kUsualAlignment);
  if (key.sizes.m == 0 || key.sizes.n == 0 || key.sizes.k == 0) return 0;
  const std::int64_t bytes = library_->find(key, kLargestProductWorkspace).workspace_bytes;
  return bytes == 0 ? 0 : bytes + kProductWorkspaceAlignment;
}

void CudaProducts::run(const Matmul& op, const KernelArguments& arguments, CUstream_st* stream) {
  const Tensor &a = arguments.inputs[0], &b = arguments.inputs[1], &c = arguments.outputs[0];
  const ProductKey key = key_of(op, a.shape, b.shape, c.dtype, alignment_of(arguments));
  if (key.sizes.m == 0 || key.sizes.n == 0) return;
  if (key.sizes.k == 0) throw InternalError(describe(key) + " sums over nothing");
  arguments.counters->product_flops += 2.0 * static_cast<double>(key.sizes.m * key.sizes.n * key.sizes.k);
  const auto address = reinterpret_cast<std::uintptr_t>(arguments.workspace);
  const std::uintptr_t skipped =
      (kProductWorkspaceAlignment - address % kProductWorkspaceAlignment) % kProductWorkspaceAlignment;
  const std::int64_t usable = std::max<std::int64_t>(0, arguments.workspace_bytes - static_cast<std::int64_t>(skipped));
  Product& product = library_->find(key, usable);
  if (product.bias_by == BiasBy::library) product.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, arguments.inputs[2].data);
  const bool adds = op.addend() != Matmul::Addend::none;
  const Tensor& addend = adds ? arguments.inputs.back() : c;
  dispatch_float(c.dtype, [&]<class T>(T) {
    const T alpha = 1, beta = adds ? T(1) : T(0);
    check(cublasLtMatmul(library_->handle, product.operation, &alpha, b.data, product.b.handle(), a.data,
                         product.a.handle(), &beta, addend.data, product.c.handle(), c.data, product.c.handle(),
                         &product.algorithm, arguments.workspace + skipped,
                         static_cast<std::size_t>(product.workspace_bytes), stream),
          describe(key));
  });
  if (product.bias_by == BiasBy::kernel) {
    const Tensor inputs[] = {c, arguments.inputs[2]};
    run_kernel(AddBias(), {inputs, arguments.outputs, nullptr, 0, arguments.counters}, stream);
  }
}

}  // namespace annulus
