#include "runtime/cpu/matmul.h"

#include <algorithm>
#include <map>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <tuple>

#include "runtime/cpu/product_f64.h"

namespace annulus {
namespace {

struct ProductKey {
  Matmul::Form form;
  Matmul::Sizes sizes;
  auto tie() const { return std::tuple(form, sizes.m, sizes.n, sizes.k); }
  bool operator<(const ProductKey& other) const { return tie() < other.tie(); }
};

/// A product prepared by oneDNN, with the memory objects that each call points at its tensors. A right operand whose
/// rows lie along n is packed into the library's own layout first, in our workspace: read in place it costs up to three
/// quarters of the speed where n is a multiple of a page.
struct Product {
  dnnl::matmul primitive;
  dnnl::memory a, b, c, scratchpad;
  dnnl::reorder pack;
  dnnl::memory pack_scratchpad, packed_b;  ///< empty where b is read in place
  std::int64_t scratchpad_bytes = 0, packed_bytes = 0;
};

/// With fewer rows packing costs more than it saves.
constexpr std::int64_t kRowsWorthPacking = 64;

/// A row-major matrix of `rows` x `columns`, or the transpose of one of `columns` x `rows`.
dnnl::memory::desc matrix(std::int64_t rows, std::int64_t columns, bool transposed) {
  using Dims = dnnl::memory::dims;
  return {Dims{rows, columns}, dnnl::memory::data_type::f32, transposed ? Dims{1, rows} : Dims{columns, 1}};
}

std::int64_t whole_lines(std::size_t bytes) { return (static_cast<std::int64_t>(bytes) + 63) / 64 * 64; }

Product prepare(const ProductKey& key, const dnnl::engine& engine) {
  const auto [m, n, k] = key.sizes;
  const auto a = matrix(m, k, key.form == Matmul::Form::tn), b = matrix(k, n, key.form == Matmul::Form::nt);
  const auto c = matrix(m, n, false);
  const bool packs = key.form != Matmul::Form::nt && m >= kRowsWorthPacking;
  const dnnl::memory::desc read_b =
      packs ? dnnl::memory::desc({k, n}, dnnl::memory::data_type::f32, dnnl::memory::format_tag::any) : b;
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
#if DNNL_VERSION_MAJOR >= 3
  const dnnl::matmul::primitive_desc description(engine, a, read_b, c, attributes);
#else
  const dnnl::matmul::primitive_desc description({a, read_b, c}, attributes, engine);
#endif
  const auto scratchpad = description.scratchpad_desc();
  Product product{
      dnnl::matmul(description), {}, {}, {}, {}, {}, {}, {}, static_cast<std::int64_t>(scratchpad.get_size()), 0};
  product.a = dnnl::memory(a, engine, DNNL_MEMORY_NONE);
  product.b = dnnl::memory(b, engine, DNNL_MEMORY_NONE);
  product.c = dnnl::memory(c, engine, DNNL_MEMORY_NONE);
  product.scratchpad = dnnl::memory(scratchpad, engine, DNNL_MEMORY_NONE);
  if (description.weights_desc() != b) {
    const auto packed = description.weights_desc();
    const dnnl::reorder::primitive_desc packing(engine, b, engine, packed, attributes);
    product.pack = dnnl::reorder(packing);
    product.packed_b = dnnl::memory(packed, engine, DNNL_MEMORY_NONE);
    product.packed_bytes = whole_lines(packed.get_size());
    product.scratchpad_bytes =
        std::max(product.scratchpad_bytes, static_cast<std::int64_t>(packing.scratchpad_desc().get_size()));
    product.pack_scratchpad = dnnl::memory(packing.scratchpad_desc(), engine, DNNL_MEMORY_NONE);
  }
  return product;
}

bool is_empty(const Matmul::Sizes& sizes) { return sizes.m == 0 || sizes.n == 0 || sizes.k == 0; }

}  // namespace

struct ProductCache::Library {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::map<ProductKey, Product> products;

  Product& find(const ProductKey& key) {
    const auto found = products.find(key);
    if (found != products.end()) return found->second;
    try {
      return products.emplace(key, prepare(key, engine)).first->second;
    } catch (const dnnl::error& error) {
      const auto [m, n, k] = key.sizes;
      throw DeviceError("oneDNN cannot prepare the product of m=" + std::to_string(m) + " n=" + std::to_string(n) +
                        " k=" + std::to_string(k) + ": " + error.what());
    }
  }
};

ProductCache::ProductCache() : library_(std::make_unique<Library>()) {}
ProductCache::~ProductCache() = default;

std::int64_t ProductCache::workspace_bytes(const Matmul& op, const ValueType& a, const ValueType& b) {
  const Matmul::Sizes sizes = op.sizes(a.shape, b.shape);
  if (is_empty(sizes)) return 0;
  if (a.dtype == DType::f64) return product_f64_workspace_bytes();
  const Product& product = library_->find({op.form(), sizes});
  return product.packed_bytes + product.scratchpad_bytes;
}

void ProductCache::run(const Matmul& op, const KernelArguments& arguments) {
  const Tensor &a = arguments.inputs[0], &b = arguments.inputs[1], &c = arguments.outputs[0];
  const Matmul::Sizes sizes = op.sizes(a.shape, b.shape);
  if (is_empty(sizes)) {  // oneDNN would leave c as it was
    std::fill_n(c.data, c.bytes(), std::byte{0});
    return;
  }
  arguments.counters->product_flops += 2.0 * static_cast<double>(sizes.m * sizes.n * sizes.k);
  if (c.dtype == DType::f64) {
    product_f64(op.form(), sizes, a.as<double>(), b.as<double>(), c.as<double>(), arguments.workspace);
    return;
  }
  Product& product = library_->find({op.form(), sizes});
  product.a.set_data_handle(a.as<float>());
  product.b.set_data_handle(b.as<float>());
  product.c.set_data_handle(c.as<float>());
  std::byte* scratchpad = arguments.workspace + product.packed_bytes;
  product.scratchpad.set_data_handle(scratchpad);
  const bool packs = product.packed_bytes > 0;
  if (packs) {
    product.packed_b.set_data_handle(arguments.workspace);
    product.pack_scratchpad.set_data_handle(scratchpad);
    product.pack.execute(
        library_->stream,
        {{DNNL_ARG_FROM, product.b}, {DNNL_ARG_TO, product.packed_b}, {DNNL_ARG_SCRATCHPAD, product.pack_scratchpad}});
  }
  product.primitive.execute(library_->stream, {{DNNL_ARG_SRC, product.a},
                                               {DNNL_ARG_WEIGHTS, packs ? product.packed_b : product.b},
                                               {DNNL_ARG_DST, product.c},
                                               {DNNL_ARG_SCRATCHPAD, product.scratchpad}});
  library_->stream.wait();
}

}  // namespace annulus
