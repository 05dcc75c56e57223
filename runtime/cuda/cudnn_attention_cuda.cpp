#include <cudnn_frontend.h>
#include <fmt/format.h>

#include <cmath>
#include <map>
#include <unordered_map>
#include <vector>

#include "runtime/core/error.h"
#include "runtime/cuda/cudnn_attention.h"
#include "runtime/cuda/cudnn_operands.h"

namespace annulus {
namespace {

namespace fe = cudnn_frontend;
using Graph = fe::graph::Graph;
using GraphTensor = std::shared_ptr<fe::graph::Tensor_attributes>;
using Direction = AttentionDirection;
using Mask = CudnnGraphKey::Mask;
using Operand = CudnnOperand;
using Pointers = std::unordered_map<std::int64_t, void*>;

void check(cudnnStatus_t status, const char* what) {
  if (status != CUDNN_STATUS_SUCCESS)
    throw DeviceError(fmt::format("cuDNN: {}: {}", what, cudnnGetErrorString(status)));
}
void check(fe::error_t error, const char* what) {
  if (error.is_bad()) throw DeviceError(fmt::format("cuDNN: {}: {}", what, error.get_message()));
}

fe::DataType_t data_type(DType type) {
  switch (type) {
    case DType::bf16:
      return fe::DataType_t::BFLOAT16;
    case DType::f16:
      return fe::DataType_t::HALF;
    case DType::f32:
      return fe::DataType_t::FLOAT;
    default:
      throw InternalError("cuDNN is asked for an unknown type");
  }
}

void describe(const GraphTensor& tensor, const CudnnGraphKey& key, CudnnOperand operand) {
  const CudnnLayout layout = layout_of(key, operand);
  tensor->set_uid(static_cast<std::int64_t>(operand)).set_data_type(data_type(layout.type));
  tensor->set_dim(std::vector<std::int64_t>(layout.extents.begin(), layout.extents.end()));
  tensor->set_stride(std::vector<std::int64_t>(layout.strides.begin(), layout.strides.end()));
}

GraphTensor input(Graph& graph, const CudnnGraphKey& key, CudnnOperand operand) {
  GraphTensor tensor = graph.tensor(fe::graph::Tensor_attributes());
  describe(tensor, key, operand);
  return tensor;
}

void output(const GraphTensor& tensor, const CudnnGraphKey& key, CudnnOperand operand) {
  tensor->set_output(true);
  describe(tensor, key, operand);
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
  const GraphTensor q = input(graph, key, Operand::q), k = input(graph, key, Operand::k),
                    v = input(graph, key, Operand::v);
  fe::graph::SDPA_attributes attributes;
  attributes.set_generate_stats(true);
  describe(attributes, key);
  if (key.out == DType::f32) attributes.set_implementation(fe::AttentionImplementation_t::COMPOSITE);
  const auto [out, lse] = graph.sdpa(q, k, v, attributes);
  output(out, key, Operand::out);
  output(lse, key, Operand::lse);
}

void add_backward(Graph& graph, const CudnnGraphKey& key) {
  const GraphTensor q = input(graph, key, Operand::q), k = input(graph, key, Operand::k),
                    v = input(graph, key, Operand::v), out = input(graph, key, Operand::out),
                    out_grad = input(graph, key, Operand::out_grad), lse = input(graph, key, Operand::lse);
  fe::graph::SDPA_backward_attributes attributes;
  attributes.set_deterministic_algorithm(key.determinism == Determinism::bitwise);
  describe(attributes, key);
  const auto [query_grad, key_grad, value_grad] = graph.sdpa_backward(q, k, v, out, out_grad, lse, attributes);
  output(query_grad, key, Operand::query_grad);
  output(key_grad, key, Operand::key_grad);
  output(value_grad, key, Operand::value_grad);
}

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

const std::string& CudnnAttention::refusal(const AttentionTask& task) { return plan(task).refusal; }
const std::string& CudnnAttention::refusal(const CudnnGraphKey& graph) { return graphs_->of(graph, limits_).refusal; }

const CudnnPlan& CudnnAttention::plan(const AttentionTask& task) {
  for (const Planned& known : planned_) {
    if (known.task == task) return known.plan;
  }
  Planned& made = planned_.emplace_back(task, plan_cudnn(task, limits_));
  if (made.plan.graph) made.plan.refusal = refusal(*made.plan.graph);
  return made.plan;
}

const CudnnPlan& CudnnAttention::accepted_plan(const AttentionTask& task) {
  const CudnnPlan& accepted = plan(task);
  if (!accepted.refusal.empty()) throw InternalError("attention that cuDNN refuses: " + accepted.refusal);
  return accepted;
}

std::int64_t CudnnAttention::workspace_bytes(const AttentionTask& task) {
  const CudnnPlan& todo = accepted_plan(task);
  if (!todo.graph) return 0;
  return packed_bytes(*todo.graph) + graphs_->of(*todo.graph, limits_).workspace_bytes + kCudnnWorkspaceAlignment;
}

void CudnnAttention::run(const AttentionTask& task, const KernelArguments& given, CUstream_st* stream) {
  const CudnnPlan& todo = accepted_plan(task);
  if (workspace_bytes(task) > given.workspace_bytes) throw InternalError("attention: the workspace is too small");
  KernelArguments arguments = given;
  const auto beyond = reinterpret_cast<std::uintptr_t>(given.workspace) % kCudnnWorkspaceAlignment;
  if (beyond > 0) arguments.workspace += kCudnnWorkspaceAlignment - beyond;
  const CudnnCall call(task, todo, arguments);
  const auto put = [&](const auto& rows) { enqueue(stream, rows); };
  call.prepare(put);
  if (todo.graph) {
    Pointers pointers;
    const auto point = [&](Operand operand) { pointers[static_cast<std::int64_t>(operand)] = call.at(operand); };
    if (task.direction == Direction::forward) {
      for (const Operand operand : kForwardOperands) point(operand);
    } else {
      for (const Operand operand : kBackwardOperands) point(operand);
    }
    Graphs::Entry& graph = graphs_->of(*todo.graph, limits_);
    graphs_->run(graph, pointers, arguments.workspace + packed_bytes(*todo.graph), stream);
    arguments.counters->attended_pairs += todo.graph->pairs();
  }
  call.finish(put);
}

}  // namespace annulus
