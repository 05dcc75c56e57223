#include "runtime/cpu/matmul.h"

#include <algorithm>
#include <map>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "runtime/cpu/gelu.h"
#include "runtime/cpu/packing.h"
#include "runtime/cpu/parallel.h"
#include "runtime/cpu/product_f64.h"

namespace annulus {
namespace {

struct ProductKey {
  Matmul::Form form;
  Matmul::Bias bias;
  Matmul::Addend addend;
  Matmul::Sizes sizes;
  ProductKey(const Matmul& op, const Matmul::Sizes& of)
      : form(op.form()), bias(op.bias()), addend(op.addend()), sizes(of) {}
  auto tie() const { return std::tuple(form, bias, addend, sizes.m, sizes.n, sizes.k); }
  bool operator<(const ProductKey& other) const { return tie() < other.tie(); }
};

/// What oneDNN does at once: a product over a range of k, with the memory objects that each call points at its tensors.
/// A right operand whose rows lie along n is packed into the library's own layout first, in our workspace: read in
/// place it costs up to three quarters of the speed where n is a multiple of a page.
struct Piece {
  dnnl::matmul primitive;
  dnnl::memory a, b, bias, addend, c, scratchpad;
  std::int64_t a_offset = 0, b_offset = 0;                   ///< elements
  std::int64_t first_column = 0, columns = 0;                ///< of c
  bool is_last = true;                                       ///< of those that add up in these columns
  std::int64_t depth = 0, row_stride = 0, packed_block = 0;  ///< of b, where we pack it ourselves
  dnnl::reorder pack;                                        ///< where the library does
  dnnl::memory pack_scratchpad, packed_b;                    ///< empty where b is read in place
};

/// Pieces along n, and those along k of each, which add up in c.
struct Product {
  std::vector<Piece> pieces;
  std::int64_t scratchpad_bytes = 0, packed_bytes = 0;
};

/// With fewer rows packing costs more than it saves.
constexpr std::int64_t kRowsWorthPacking = 64;
/// A packed operand of more bytes is made in pieces, each used while it is in cache.
constexpr std::int64_t kMostPackedBytes = std::int64_t{8} << 20;
/// So much of one stays in the caches of the cores that packed it.
constexpr std::int64_t kNearBytes = std::int64_t{5} << 19;
constexpr std::int64_t kLeastColumns = 512;
constexpr std::int64_t kPartMultiple = 64;

constexpr auto kFloat = dnnl::memory::data_type::f32;

/// A matrix of `rows` x `columns` within rows of `stride` elements, or the transpose of one of `columns` x `rows`.
dnnl::memory::desc matrix(std::int64_t rows, std::int64_t columns, std::int64_t stride, bool transposed) {
  using Dims = dnnl::memory::dims;
  return {Dims{rows, columns}, kFloat, transposed ? Dims{1, stride} : Dims{stride, 1}};
}

std::int64_t whole_lines(std::size_t bytes) { return (static_cast<std::int64_t>(bytes) + 63) / 64 * 64; }

/// Columns of a block, where the layout of a packed operand is one that `pack_columns` makes; else 0.
std::int64_t packed_block(const dnnl::memory::desc& packed, const dnnl::memory::dims& sizes) {
  using enum dnnl::memory::format_tag;
  for (const auto& [tag, block] : {std::pair(BA16a64b, 64), std::pair(BA16a48b, 48), std::pair(BA16a32b, 32)})
    if (packed == dnnl::memory::desc(sizes, kFloat, tag)) return block;
  return 0;
}

bool packs(const ProductKey& key) { return key.form != Matmul::Form::nt && key.sizes.m >= kRowsWorthPacking; }

/// A range of columns of c, and one of depths.
struct Range {
  std::int64_t begin, size;
};

/// [0, count) in parts of about equal size, each a multiple of `multiple` but the last.
std::vector<Range> equal_parts(std::int64_t count, std::int64_t parts, std::int64_t multiple) {
  const std::int64_t even = (count + parts - 1) / parts, size = (even + multiple - 1) / multiple * multiple;
  std::vector<Range> ranges;
  for (std::int64_t begin = 0; begin < count; begin += size) ranges.push_back({begin, std::min(size, count - begin)});
  return ranges;
}

std::int64_t parts_of(std::int64_t bytes, std::int64_t most) {
  return std::max<std::int64_t>(1, (bytes + most - 1) / most);
}

std::int64_t packed_bytes(std::int64_t depth, std::int64_t columns) {
  return depth * columns * static_cast<std::int64_t>(sizeof(float));
}

/// A wide weight is packed by columns, so that it is still in the nearest caches when its product begins.
std::vector<Range> column_ranges(const ProductKey& key) {
  const auto [m, n, k] = key.sizes;
  const bool wide = key.form == Matmul::Form::nn && packs(key) && n > k && packed_bytes(k, n) > kMostPackedBytes;
  const std::int64_t parts = wide ? parts_of(packed_bytes(k, n), kNearBytes) : 1;
  return equal_parts(n, std::min(parts, parts_of(n, kLeastColumns)), kPartMultiple);
}

std::vector<Range> depth_ranges(const ProductKey& key, std::int64_t columns) {
  const std::int64_t k = key.sizes.k;
  return equal_parts(k, packs(key) ? parts_of(packed_bytes(k, columns), kMostPackedBytes) : 1, kPartMultiple);
}

void add_reorder(Product& product, Piece& piece, const dnnl::memory::desc& b, const dnnl::memory::desc& packed,
                 const dnnl::engine& engine) {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const dnnl::reorder::primitive_desc packing(engine, b, engine, packed, attributes);
  piece.pack = dnnl::reorder(packing);
  piece.pack_scratchpad = dnnl::memory(packing.scratchpad_desc(), engine, DNNL_MEMORY_NONE);
  product.scratchpad_bytes =
      std::max(product.scratchpad_bytes, static_cast<std::int64_t>(packing.scratchpad_desc().get_size()));
}

/// Adds the piece of these columns and depths. The first of a column has the epilogue.
void add_piece(Product& product, const ProductKey& key, Range column, Range depth, const dnnl::engine& engine) {
  const auto [m, n, k] = key.sizes;
  const bool first = depth.begin == 0, left_transposed = key.form == Matmul::Form::tn,
             right_transposed = key.form == Matmul::Form::nt;
  const auto a = matrix(m, depth.size, left_transposed ? m : k, left_transposed);
  const auto b = matrix(depth.size, column.size, right_transposed ? k : n, right_transposed),
             c = matrix(m, column.size, n, false);
  const auto read_b =
      packs(key) ? dnnl::memory::desc({depth.size, column.size}, kFloat, dnnl::memory::format_tag::any) : b;
  const auto bias =
      first && key.bias != Matmul::Bias::none ? matrix(1, column.size, column.size, false) : dnnl::memory::desc();
  dnnl::post_ops behind;
  if (!first || key.addend == Matmul::Addend::in_place) behind.append_sum(1);
  if (first && key.addend == Matmul::Addend::operand) behind.append_binary(dnnl::algorithm::binary_add, c);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  attributes.set_post_ops(behind);
#if DNNL_VERSION_MAJOR >= 3
  const dnnl::matmul::primitive_desc description(engine, a, read_b, bias, c, attributes);
#else
  const dnnl::matmul::primitive_desc description({a, read_b, bias, c}, attributes, engine);
#endif
  const auto unbound = [&](const dnnl::memory::desc& of) { return dnnl::memory(of, engine, DNNL_MEMORY_NONE); };
  const auto scratchpad = description.scratchpad_desc();
  Piece piece;
  piece.primitive = dnnl::matmul(description);
  piece.a = unbound(a);
  piece.b = unbound(b);
  piece.c = unbound(c);
  piece.scratchpad = unbound(scratchpad);
  if (first && key.bias != Matmul::Bias::none) piece.bias = unbound(bias);
  if (first && key.addend == Matmul::Addend::operand) piece.addend = unbound(c);
  piece.a_offset = depth.begin * (left_transposed ? m : 1);
  piece.b_offset = depth.begin * (right_transposed ? 1 : n) + column.begin * (right_transposed ? k : 1);
  piece.first_column = column.begin;
  piece.columns = column.size;
  piece.is_last = depth.begin + depth.size == k;
  product.scratchpad_bytes = std::max(product.scratchpad_bytes, static_cast<std::int64_t>(scratchpad.get_size()));
  if (const auto packed = description.weights_desc(); packed != b) {
    piece.packed_b = unbound(packed);
    piece.depth = depth.size;
    piece.row_stride = n;
    piece.packed_block = right_transposed ? 0 : packed_block(packed, {depth.size, column.size});
    product.packed_bytes = std::max(product.packed_bytes, whole_lines(packed.get_size()));
    if (piece.packed_block == 0) add_reorder(product, piece, b, packed, engine);
  }
  product.pieces.push_back(std::move(piece));
}

Product prepare(const ProductKey& key, const dnnl::engine& engine) {
  Product product;
  for (const Range& column : column_ranges(key))
    for (const Range& depth : depth_ranges(key, column.size)) add_piece(product, key, column, depth, engine);
  return product;
}

bool is_empty(const Matmul::Sizes& sizes) { return sizes.m == 0 || sizes.n == 0 || sizes.k == 0; }

template <class T>
Added<T> added_by(const Matmul& op, const KernelArguments& arguments) {
  Added<T> added;
  if (op.bias() != Matmul::Bias::none) added.bias = arguments.inputs[2].as<T>();
  if (op.addend() != Matmul::Addend::none) added.addend = arguments.inputs[op.addend_input()].as<T>();
  return added;
}

/// A product without depth: what is added to it is all there is. oneDNN would leave c as it was.
template <class T>
void write_added(const Matmul::Sizes& sizes, const Added<T>& added, T* c) {
  for (std::int64_t i = 0; i < sizes.m * sizes.n; ++i)
    c[i] = (added.bias ? added.bias[i % sizes.n] : T(0)) + (added.addend ? added.addend[i] : T(0));
}

/// What the op makes of its product, in a range of columns.
template <class T>
void finish(const Matmul& op, const Matmul::Sizes& sizes, const KernelArguments& arguments, Range column) {
  if (op.finish() == Matmul::Finish::none) return;
  const T* c = arguments.outputs[op.unfinished_output()].as<T>();
  T* y = arguments.outputs[0].as<T>();
  const Activation activation = op.epilogue().activation;
  parallel_ranges(sizes.m, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t at = row * sizes.n + column.begin;
      if (op.finish() == Matmul::Finish::gelu_slope) {
        gelu_grad_elements(activation, arguments.inputs.back().as<T>() + at, c + at, y + at, column.size);
      } else {
        gelu_elements(activation, c + at, y + at, column.size);
      }
    }
  });
}

void run_piece(Piece& piece, const Product& product, const KernelArguments& arguments, const Added<float>& added,
               float* c, const dnnl::stream& stream) {
  std::byte* scratchpad = arguments.workspace + product.packed_bytes;
  piece.a.set_data_handle(arguments.inputs[0].as<float>() + piece.a_offset);
  piece.b.set_data_handle(arguments.inputs[1].as<float>() + piece.b_offset);
  piece.c.set_data_handle(c + piece.first_column);
  piece.scratchpad.set_data_handle(scratchpad);
  std::unordered_map<int, dnnl::memory> operands{{DNNL_ARG_SRC, piece.a},
                                                 {DNNL_ARG_WEIGHTS, piece.b},
                                                 {DNNL_ARG_DST, piece.c},
                                                 {DNNL_ARG_SCRATCHPAD, piece.scratchpad}};
  if (piece.bias) {
    piece.bias.set_data_handle(const_cast<float*>(added.bias) + piece.first_column);
    operands[DNNL_ARG_BIAS] = piece.bias;
  }
  if (piece.addend) {
    piece.addend.set_data_handle(const_cast<float*>(added.addend) + piece.first_column);
    operands[DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1] = piece.addend;
  }
  if (piece.packed_b) {
    piece.packed_b.set_data_handle(arguments.workspace);
    if (piece.packed_block > 0) {
      pack_columns(arguments.inputs[1].as<float>() + piece.b_offset, piece.depth, piece.columns, piece.row_stride,
                   piece.packed_block, reinterpret_cast<float*>(arguments.workspace));
    } else {
      piece.pack_scratchpad.set_data_handle(scratchpad);
      piece.pack.execute(
          stream,
          {{DNNL_ARG_FROM, piece.b}, {DNNL_ARG_TO, piece.packed_b}, {DNNL_ARG_SCRATCHPAD, piece.pack_scratchpad}});
    }
    operands[DNNL_ARG_WEIGHTS] = piece.packed_b;
  }
  piece.primitive.execute(stream, operands);
}

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
  const Product& product = library_->find({op, sizes});
  return product.packed_bytes + product.scratchpad_bytes;
}

void ProductCache::run(const Matmul& op, const KernelArguments& arguments) {
  const Tensor &a = arguments.inputs[0], &b = arguments.inputs[1], &c = arguments.outputs[op.unfinished_output()];
  const Matmul::Sizes sizes = op.sizes(a.shape, b.shape);
  const Range all_columns{0, sizes.n};
  if (is_empty(sizes)) {
    dispatch_float(c.dtype, [&]<class T>(T) {
      write_added<T>(sizes, added_by<T>(op, arguments), c.as<T>());
      finish<T>(op, sizes, arguments, all_columns);
    });
    return;
  }
  arguments.counters->product_flops += 2.0 * static_cast<double>(sizes.m * sizes.n * sizes.k);
  if (c.dtype == DType::f64) {
    product_f64(op.form(), sizes, a.as<double>(), b.as<double>(), c.as<double>(), added_by<double>(op, arguments),
                arguments.workspace);
    finish<double>(op, sizes, arguments, all_columns);
    return;
  }
  Product& product = library_->find({op, sizes});
  const Added<float> added = added_by<float>(op, arguments);
  for (Piece& piece : product.pieces) {
    run_piece(piece, product, arguments, added, c.as<float>(), library_->stream);
    if (piece.is_last) finish<float>(op, sizes, arguments, {piece.first_column, piece.columns});
  }
  library_->stream.wait();
}

}  // namespace annulus
