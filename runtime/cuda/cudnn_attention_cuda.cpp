#include <cudnn_frontend.h>
#include <fmt/format.h>

#include <cmath>
#include <map>
#include <unordered_map>
#include <vector>

#include "runtime/core/error.h"
#include "runtime/cuda/attention_rows.h"
#include "runtime/cuda/cudnn_attention.h"

namespace annulus {
namespace {

namespace fe = cudnn_frontend;
using Graph = fe::graph::Graph;
using GraphTensor = std::shared_ptr<fe::graph::Tensor_attributes>;
using Direction = AttentionDirection;
using Mask = CudnnGraphKey::Mask;
using Results = CudnnGraphKey::Results;

/// The operands of graphs.
enum Id : std::int64_t { kQ = 1, kK, kV, kOut, kLse, kOutGrad, kQueryGrad, kKeyGrad, kValueGrad };
using Pointers = std::unordered_map<std::int64_t, void*>;

void check(cudnnStatus_t status, const char* what) {
  if (status != CUDNN_STATUS_SUCCESS)
    throw DeviceError(fmt::format("cuDNN: {}: {}", what, cudnnGetErrorString(status)));
}
void check(fe::error_t error, const char* what) {
  if (error.is_bad()) throw DeviceError(fmt::format("cuDNN: {}: {}", what, error.get_message()));
}

fe::DataType_t data_type(AttentionType type) {
  switch (type) {
    case AttentionType::bf16:
      return fe::DataType_t::BFLOAT16;
    case AttentionType::f16:
      return fe::DataType_t::HALF;
    case AttentionType::f32:
      return fe::DataType_t::FLOAT;
    case AttentionType::other:
      break;
  }
  throw InternalError("cuDNN is asked for an unknown type");
}

std::int64_t bytes_of(AttentionType type) { return type == AttentionType::f32 ? 4 : 2; }

/// Extents and strides of [sequence, head, position, element].
struct Layout {
  std::vector<std::int64_t> extents, strides;
};

Layout query_layout(const CudnnGraphKey& key, Results results) {
  const std::int64_t row = key.heads * key.head_dim;
  const std::int64_t positions = results == Results::in_place ? key.query_positions : key.queries;
  return {{key.sequences, key.heads, key.queries, key.head_dim}, {positions * row, key.head_dim, row, 1}};
}

Layout key_layout(const CudnnGraphKey& key) {
  const std::int64_t row = 2 * key.kv_heads * key.head_dim;
  return {{key.sequences, key.kv_heads, key.keys, key.head_dim}, {key.key_positions * row, key.head_dim, row, 1}};
}

/// In place [rows, heads]; packed [sequences, heads, queries], the one form that cuDNN's backward reads before 9.26.
Layout lse_layout(const CudnnGraphKey& key, Results results) {
  const std::vector<std::int64_t> extents{key.sequences, key.heads, key.queries, 1};
  if (results == Results::in_place) return {extents, {key.query_positions * key.heads, 1, key.heads, 1}};
  return {extents, {key.heads * key.queries, key.queries, 1, 1}};
}

void describe(const GraphTensor& tensor, Id id, const Layout& layout, AttentionType type) {
  tensor->set_uid(id).set_dim(layout.extents).set_stride(layout.strides).set_data_type(data_type(type));
}

GraphTensor input(Graph& graph, Id id, const Layout& layout, AttentionType type) {
  GraphTensor tensor = graph.tensor(fe::graph::Tensor_attributes());
  describe(tensor, id, layout, type);
  return tensor;
}

void output(const GraphTensor& tensor, Id id, const Layout& layout, AttentionType type) {
  tensor->set_output(true);
  describe(tensor, id, layout, type);
}

/// What both directions ask for.
template <class Attributes>
void describe(Attributes& attributes, const CudnnGraphKey& key) {
  attributes.set_attn_scale(static_cast<float>(1 / std::sqrt(static_cast<double>(key.head_dim))));
  if (key.mask == Mask::full) return;
  attributes.set_diagonal_alignment(key.mask == Mask::causal ? fe::DiagonalAlignment_t::TOP_LEFT
                                                             : fe::DiagonalAlignment_t::BOTTOM_RIGHT);
  attributes.set_diagonal_band_right_bound(0);
}

void add_forward(Graph& graph, const CudnnGraphKey& key) {
  const GraphTensor q = input(graph, kQ, query_layout(key, Results::in_place), key.storage);
  const GraphTensor k = input(graph, kK, key_layout(key), key.storage),
                    v = input(graph, kV, key_layout(key), key.storage);
  fe::graph::SDPA_attributes attributes;
  attributes.set_generate_stats(true);
  describe(attributes, key);
  if (key.out == AttentionType::f32) attributes.set_implementation(fe::AttentionImplementation_t::COMPOSITE);
  const auto [out, lse] = graph.sdpa(q, k, v, attributes);
  output(out, kOut, query_layout(key, key.results), key.out);
  output(lse, kLse, lse_layout(key, key.results), AttentionType::f32);
}

void add_backward(Graph& graph, const CudnnGraphKey& key) {
  const Layout queries = query_layout(key, Results::in_place), keys = key_layout(key);
  const GraphTensor q = input(graph, kQ, queries, key.storage), k = input(graph, kK, keys, key.storage),
                    v = input(graph, kV, keys, key.storage), out = input(graph, kOut, queries, key.out),
                    out_grad = input(graph, kOutGrad, queries, key.storage),
                    lse = input(graph, kLse, lse_layout(key, Results::packed), AttentionType::f32);
  fe::graph::SDPA_backward_attributes attributes;
  attributes.set_deterministic_algorithm(key.determinism == Determinism::bitwise);
  describe(attributes, key);
  const auto [query_grad, key_grad, value_grad] = graph.sdpa_backward(q, k, v, out, out_grad, lse, attributes);
  output(query_grad, kQueryGrad, query_layout(key, key.results), key.query_grad);
  output(key_grad, kKeyGrad, keys, key.kv_grad);
  output(value_grad, kValueGrad, keys, key.kv_grad);
}

/// Our part of the workspace: what cuDNN leaves packed, or reads so.
struct PackedBytes {
  std::int64_t rows = 0, lse = 0;

  explicit PackedBytes(const CudnnGraphKey& key) {
    const auto aligned = [](std::int64_t bytes) { return (bytes + 255) / 256 * 256; };
    const std::int64_t row_heads = key.sequences * key.queries * key.heads;
    const bool backward = key.direction == Direction::backward, packed = key.results == Results::packed;
    if (packed) rows = aligned(row_heads * key.head_dim * 4);
    if (packed || backward) lse = aligned(row_heads * 4);
  }
  std::int64_t total() const { return rows + lse; }
};

}  // namespace

/// Graphs by key, and the handle or the description that they are built for.
class CudnnAttention::Graphs {
 public:
  struct Entry {
    Graph graph;
    std::string refusal;
    std::int64_t workspace_bytes = 0;
  };

  Graphs() {
    cudnnHandle_t handle = nullptr;
    check(cudnnCreate(&handle), "no handle");
    handle_.reset(handle);
  }
  explicit Graphs(std::string_view properties) : properties_(std::make_shared<fe::DeviceProperties>()) {
    check(properties_->deserialize({properties.begin(), properties.end()}), "properties of a device");
  }

  Entry& of(const CudnnGraphKey& key, const CudnnLimits& limits) {
    std::unique_ptr<Entry>& entry = entries_[key];
    if (!entry) {
      entry = std::make_unique<Entry>();
      fe::error_t error = build(*entry, key, limits);
      if (error.is_bad()) entry->refusal = fmt::format("cuDNN {}: {}", cudnnGetVersion(), error.get_message());
    }
    return *entry;
  }

  void run(Entry& entry, Pointers& pointers, std::byte* workspace, cudaStream_t stream) {
    if (!handle_) throw InternalError("cuDNN is to run without a device");
    check(cudnnSetStream(handle_.get(), stream), "the stream");
    check(entry.graph.execute(handle_.get(), pointers, workspace), "attention");
  }

 private:
  fe::error_t build(Entry& entry, const CudnnGraphKey& key, const CudnnLimits& limits) const {
    Graph& graph = entry.graph;
    graph.set_intermediate_data_type(fe::DataType_t::FLOAT).set_compute_data_type(fe::DataType_t::FLOAT);
    if (properties_) graph.set_device_properties(properties_);
    graph.set_sm_version(limits.compute_capability);
    key.direction == Direction::forward ? add_forward(graph, key) : add_backward(graph, key);
    fe::error_t error = graph.validate();
    if (error.is_good()) error = handle_ ? graph.build_operation_graph(handle_.get()) : graph.build_operation_graph();
    if (error.is_good()) error = graph.create_execution_plans({fe::HeurMode_t::A});
    if (error.is_good()) graph.deselect_workspace_greater_than(limits.workspace_bytes);
    if (error.is_good()) error = graph.check_support();
    if (error.is_bad()) return error;
    if (!handle_) {
      entry.workspace_bytes = estimated_workspace_bytes(key);
      return error;
    }
    error = graph.build_plans();
    if (error.is_good()) error = graph.get_workspace_size(entry.workspace_bytes);
    if (error.is_good() && entry.workspace_bytes > limits.workspace_bytes) {
      entry.refusal = fmt::format("cuDNN wants {} bytes of workspace, more than the limit of {}", entry.workspace_bytes,
                                  limits.workspace_bytes);
    }
    return error;
  }

  struct HandleDeleter {
    void operator()(cudnnHandle_t handle) const { cudnnDestroy(handle); }
  };

  std::unique_ptr<cudnnContext, HandleDeleter> handle_;
  std::shared_ptr<fe::DeviceProperties> properties_;
  std::map<CudnnGraphKey, std::unique_ptr<Entry>> entries_;
};

namespace {

/// One call: where the operands of a plan's graph lie.
class Call {
 public:
  Call(const AttentionTask& task, const CudnnPlan& plan, const KernelArguments& arguments)
      : task_(task),
        arguments_(arguments),
        queries_{task.sequences, task.queries, plan.query_begin, plan.graph ? plan.graph->queries : 0},
        keys_{task.sequences, task.keys, plan.key_begin, plan.graph ? plan.graph->keys : 0},
        packed_(plan.graph && plan.graph->results == Results::packed),
        packed_rows_(reinterpret_cast<float*>(arguments.workspace)),
        packed_lse_(reinterpret_cast<float*>(arguments.workspace + (plan.graph ? PackedBytes(*plan.graph).rows : 0))) {}

  /// What comes before cuDNN's part: the rows that it does not write, the log-sum-exp that it reads.
  void prepare(cudaStream_t stream, bool runs) const {
    constexpr std::uint32_t kNoKey = 0xFF800000;  // -infinity
    const Tensor &first = arguments_.outputs[0], &second = arguments_.outputs[1];
    const bool forward = task_.direction == Direction::forward;
    if (task_.first) fill_other_rows(stream, first, queries_, 0);
    if (!forward) fill_other_rows(stream, second, keys_, 0);
    if (forward && task_.first) fill_other_rows(stream, second, queries_, kNoKey);
    if (forward || !runs) return;
    enqueue(stream, PackLogSumExp{arguments_.inputs[5].as<float>(), packed_lse_, queries_, task_.heads});
  }

  Pointers pointers() const {
    const std::int64_t kv_width = task_.kv_heads * task_.head_dim;
    Pointers at{{kQ, queries(arguments_.inputs[0].data, task_.storage)}};
    const auto keys = [&](std::byte* data, AttentionType type, std::int64_t part) {
      return data + (keys_.begin * 2 + part) * kv_width * bytes_of(type);
    };
    at[kK] = keys(arguments_.inputs[1].data, task_.storage, 0);
    at[kV] = keys(arguments_.inputs[1].data, task_.storage, 1);
    void* const packed = packed_rows_;
    if (task_.direction == Direction::forward) {
      std::byte* const lse = arguments_.outputs[1].data + queries_.begin * task_.heads * bytes_of(task_.lse);
      at[kOut] = packed_ ? packed : queries(arguments_.outputs[0].data, task_.out);
      at[kLse] = packed_ ? static_cast<void*>(packed_lse_) : lse;
    } else {
      at[kOut] = queries(arguments_.inputs[4].data, task_.out);
      at[kLse] = packed_lse_;
      at[kOutGrad] = queries(arguments_.inputs[6].data, task_.storage);
      at[kQueryGrad] = packed_ ? packed : queries(arguments_.outputs[0].data, task_.query_grad);
      at[kKeyGrad] = keys(arguments_.outputs[1].data, task_.kv_grad, 0);
      at[kValueGrad] = keys(arguments_.outputs[1].data, task_.kv_grad, 1);
    }
    return at;
  }

  /// What comes after: packed results join those of earlier steps.
  void finish(cudaStream_t stream) const {
    if (!packed_) return;
    float* const sum = arguments_.outputs[0].as<float>();
    if (task_.direction == Direction::backward) {
      enqueue(stream, AddPackedRows{sum, packed_rows_, queries_, task_.heads * task_.head_dim});
    } else {
      enqueue(stream, MergePackedRows{sum, arguments_.outputs[1].as<float>(), packed_rows_, packed_lse_, queries_,
                                      task_.heads, task_.head_dim});
    }
  }

 private:
  static void fill_other_rows(cudaStream_t stream, const Tensor& tensor, const SequenceRows& rows,
                              std::uint32_t value) {
    const std::int64_t row_words = tensor.bytes() / tensor.shape.rows() / 4;
    enqueue(stream, FillOtherRows{reinterpret_cast<std::uint32_t*>(tensor.data), rows, row_words, value});
  }
  std::byte* queries(std::byte* data, AttentionType type) const {
    return data + queries_.begin * task_.heads * task_.head_dim * bytes_of(type);
  }

  const AttentionTask& task_;
  const KernelArguments& arguments_;
  SequenceRows queries_, keys_;
  bool packed_;
  float *packed_rows_, *packed_lse_;
};

int current_compute_capability() {
  int device = 0, major = 0, minor = 0;
  cudaError_t code = cudaGetDevice(&device);
  if (code == cudaSuccess) code = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (code == cudaSuccess) code = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  if (code != cudaSuccess) throw DeviceError(fmt::format("no CUDA device for cuDNN: {}", cudaGetErrorString(code)));
  return 10 * major + minor;
}

}  // namespace

CudnnAttention::CudnnAttention(const CudnnOptions& options)
    : limits_{current_compute_capability(), options.determinism, options.workspace_bytes},
      graphs_(std::make_unique<Graphs>()) {}
CudnnAttention::CudnnAttention(std::string_view properties, int compute_capability, const CudnnOptions& options)
    : limits_{compute_capability, options.determinism, options.workspace_bytes},
      graphs_(std::make_unique<Graphs>(properties)) {}
CudnnAttention::~CudnnAttention() = default;
CudnnAttention::CudnnAttention(CudnnAttention&&) noexcept = default;

std::string CudnnAttention::refusal(const AttentionTask& task) {
  const CudnnPlan plan = plan_cudnn(task, limits_);
  return plan.graph ? refusal(*plan.graph) : plan.refusal;
}
std::string CudnnAttention::refusal(const CudnnGraphKey& graph) { return graphs_->of(graph, limits_).refusal; }

CudnnPlan CudnnAttention::plan(const AttentionTask& task) {
  CudnnPlan plan = plan_cudnn(task, limits_);
  if (plan.graph) plan.refusal = refusal(*plan.graph);
  if (!plan.refusal.empty()) throw InternalError("attention that cuDNN refuses: " + plan.refusal);
  return plan;
}

std::int64_t CudnnAttention::workspace_bytes(const AttentionTask& task) {
  const CudnnPlan todo = plan(task);
  return todo.graph ? PackedBytes(*todo.graph).total() + graphs_->of(*todo.graph, limits_).workspace_bytes : 0;
}

void CudnnAttention::run(const AttentionTask& task, const KernelArguments& arguments, CUstream_st* stream) {
  const CudnnPlan todo = plan(task);
  const Call call(task, todo, arguments);
  if (workspace_bytes(task) > arguments.workspace_bytes) throw InternalError("attention: the workspace is too small");
  call.prepare(stream, todo.graph.has_value());
  if (!todo.graph) return;
  Pointers pointers = call.pointers();
  graphs_->run(graphs_->of(*todo.graph, limits_), pointers, arguments.workspace + PackedBytes(*todo.graph).total(),
               stream);
  call.finish(stream);
  arguments.counters->attended_pairs += todo.graph->pairs();
}

}  // namespace annulus
