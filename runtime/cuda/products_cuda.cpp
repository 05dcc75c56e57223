#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "runtime/cuda/cublaslt.cuh"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/planned_workspace.h"
#include "runtime/cuda/product_timer.cuh"
#include "runtime/cuda/products.h"

namespace annulus {
namespace {

std::uint32_t alignment_of(const KernelArguments& arguments) {
  std::uintptr_t bits = ProductShape{}.alignment;
  for (const Tensor& output : arguments.outputs) bits |= reinterpret_cast<std::uintptr_t>(output.data);
  for (const Tensor& input : arguments.inputs) bits |= reinterpret_cast<std::uintptr_t>(input.data);
  return static_cast<std::uint32_t>(bits & (~bits + 1));
}

/// What the library is to read and write of an op of which it does `done`.
ProductOperands operands_of(const Matmul& op, const ProductEpilogue& done, const KernelArguments& arguments) {
  ProductOperands operands{.a = arguments.inputs[0].data, .b = arguments.inputs[1].data};
  if (done.bias != ProductEpilogue::Bias::none) operands.bias = arguments.inputs[2].data;
  if (done.addend != ProductEpilogue::Addend::none) operands.addend = arguments.inputs[op.addend_input()].data;
  if (done.finish == ProductEpilogue::Finish::gelu_and_input) operands.gelu_input = arguments.outputs[1].data;
  if (done.finish == ProductEpilogue::Finish::gelu_slope) operands.gelu_input = arguments.inputs[op.slope_input()].data;
  operands.result = arguments.outputs[library_output(op, done)].data;
  return operands;
}

}  // namespace

struct CudaProducts::Cache final : ProductTrials {
  explicit Cache(const CudaOptions& options)
      : float_products(options.float_products), determinism(options.determinism), unchosen(options.unchosen_products) {
    check_cublas(cublasLtCreate(&library), "products");
  }
  ~Cache() override {
    ready.clear();
    cublasLtDestroy(library);
  }

  std::string machine() const override {
    const std::size_t version = cublasLtGetVersion();
    return fmt::format("{}, cuBLASLt {}.{}.{}{}", name_of_current_gpu(), version / 10000, version % 10000 / 100,
                       version % 100, float_products == FloatProducts::tf32 ? ", tf32" : "");
  }

  std::vector<ProductAlgorithm> suggestions(const ProductShape& shape, const ProductEpilogue& done, int most) override {
    std::vector<ProductAlgorithm> described;
    LibraryProduct product(shape, done, float_products);
    for (const auto& one : product.suggestions(library, determinism, kLargestProductWorkspace, most)) {
      const ProductAlgorithm algorithm = description_of(one.algo);
      if (product.take(library, algorithm) && product.workspace_bytes() <= kLargestProductWorkspace)
        described.push_back(algorithm);
    }
    return described;
  }

  std::optional<double> seconds(const ProductShape& shape, const ProductEpilogue& done,
                                const ProductAlgorithm& algorithm) override {
    LibraryProduct product(shape, done, float_products);
    if (!product.take(library, algorithm)) return std::nullopt;
    return timer->seconds(library, product, shape);
  }

  /// As the table has it, or null where it says nothing of this product.
  std::unique_ptr<LibraryProduct> chosen(const ProductShape& shape) const {
    const auto found = table.choices.find(shape.str());
    if (found == table.choices.end() || !found->second.algorithm) return nullptr;
    auto product =
        std::make_unique<LibraryProduct>(shape, library_epilogues(shape)[found->second.epilogue], float_products);
    if (product->take(library, *found->second.algorithm)) return product;
    throw ConfigError(fmt::format(
        "cuBLASLt does not take algorithm {} for the product {}, though it was chosen; choose the products' algorithms "
        "anew",
        found->second.algorithm->id, shape.str()));
  }

  std::unique_ptr<LibraryProduct> suggested(const ProductShape& shape) const {
    for (const ProductEpilogue& done : library_epilogues(shape)) {
      auto product = std::make_unique<LibraryProduct>(shape, done, float_products);
      const auto found = product->suggestions(library, determinism, kLargestProductWorkspace, 1);
      if (found.empty()) continue;
      product->take(found.front());
      return product;
    }
    throw DeviceError("cuBLASLt has no algorithm for the product " + shape.str());
  }

  void choose(const std::vector<ProductShape>& shapes, CUstream_st* stream) {
    timer = std::make_unique<ProductTimer>(stream);
    table = choose_products(*this, shapes, determinism, std::move(table));
    timer.reset();
  }

  LibraryProduct& find(const ProductShape& shape, CUstream_st* stream) {
    std::unique_ptr<LibraryProduct>& product = ready[shape];
    if (product) return *product;
    if (unchosen == UnchosenProducts::measured && !table.choices.contains(shape.str())) choose({shape}, stream);
    product = chosen(shape);
    if (!product) product = suggested(shape);
    return *product;
  }

  cublasLtHandle_t library = nullptr;
  FloatProducts float_products;
  Determinism determinism;
  UnchosenProducts unchosen;
  ProductTable table;
  std::map<ProductShape, std::unique_ptr<LibraryProduct>> ready;
  std::unique_ptr<ProductTimer> timer;  ///< while algorithms are chosen
};

CudaProducts::CudaProducts(const CudaOptions& options) : cache_(std::make_unique<Cache>(options)) {}
CudaProducts::~CudaProducts() = default;

std::string CudaProducts::machine() const { return cache_->machine(); }

const ProductTable& CudaProducts::choose(const std::vector<ProductShape>& shapes, CUstream_st* stream) {
  cache_->choose(shapes, stream);
  return cache_->table;
}

void CudaProducts::use(const ProductTable& table, const std::vector<ProductShape>& shapes, const std::string& where) {
  require_fits(table, cache_->machine(), shapes, cache_->determinism, where);
  cache_->table = table;
  cache_->ready.clear();
  for (const ProductShape& shape : shapes) cache_->find(shape, nullptr);  // a table that lacks nothing of them
}

void CudaProducts::run(const Matmul& op, const KernelArguments& arguments, CUstream_st* stream) {
  const Tensor &a = arguments.inputs[0], &b = arguments.inputs[1];
  ProductShape shape = shape_of(op, a.shape, b.shape, a.dtype);
  shape.alignment = alignment_of(arguments);
  if (shape.sizes.m == 0 || shape.sizes.n == 0) return;
  if (shape.is_empty()) throw InternalError("the product " + shape.str() + " sums over nothing");
  if (arguments.workspace_bytes < kProductWorkspaceBytes) throw InternalError("too little workspace for a product");
  arguments.counters->product_flops += 2.0 * static_cast<double>(shape.sizes.m * shape.sizes.n * shape.sizes.k);
  const auto address = reinterpret_cast<std::uintptr_t>(arguments.workspace);
  const std::uintptr_t skipped =
      (kProductWorkspaceAlignment - address % kProductWorkspaceAlignment) % kProductWorkspaceAlignment;
  LibraryProduct& product = cache_->find(shape, stream);
  ProductOperands operands = operands_of(op, product.done(), arguments);
  operands.workspace = arguments.workspace + skipped;
  product.run(cache_->library, operands, stream);
  run_rest_of_epilogue(op, product.done(), arguments,
                       [&](const auto& kind, const KernelArguments& rest) { run_kernel(kind, rest, stream); });
}

}  // namespace annulus
