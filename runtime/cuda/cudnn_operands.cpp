#include "runtime/cuda/cudnn_operands.h"

#include "runtime/core/error.h"

namespace annulus {
namespace {

using Results = CudnnGraphKey::Results;

std::int64_t bytes_of(AttentionType type) { return type == AttentionType::f32 ? 4 : 2; }
std::int64_t aligned(std::int64_t bytes) { return (bytes + 255) / 256 * 256; }
bool is_packed(const CudnnGraphKey& graph) { return graph.results == Results::packed; }
bool is_backward(const CudnnGraphKey& graph) { return graph.direction == AttentionDirection::backward; }

/// cuDNN's backward reads no other log-sum-exp than a packed one before 9.26.
bool packs_lse(const CudnnGraphKey& graph) { return is_packed(graph) || is_backward(graph); }

std::int64_t packed_rows_bytes(const CudnnGraphKey& graph) {
  return is_packed(graph) ? aligned(graph.sequences * graph.queries * graph.heads * graph.head_dim * 4) : 0;
}

CudnnLayout query_layout(const CudnnGraphKey& graph, AttentionType type, Results results) {
  const std::int64_t row = graph.heads * graph.head_dim;
  const std::int64_t positions = results == Results::in_place ? graph.query_positions : graph.queries;
  return {
      type, {graph.sequences, graph.heads, graph.queries, graph.head_dim}, {positions * row, graph.head_dim, row, 1}};
}

CudnnLayout key_layout(const CudnnGraphKey& graph, AttentionType type) {
  const std::int64_t row = 2 * graph.kv_heads * graph.head_dim;
  return {type,
          {graph.sequences, graph.kv_heads, graph.keys, graph.head_dim},
          {graph.key_positions * row, graph.head_dim, row, 1}};
}

CudnnLayout lse_layout(const CudnnGraphKey& graph) {
  CudnnLayout layout{AttentionType::f32, {graph.sequences, graph.heads, graph.queries, 1}, {}};
  if (packs_lse(graph)) {
    layout.strides = {graph.heads * graph.queries, graph.queries, 1, 1};
  } else {
    layout.strides = {graph.query_positions * graph.heads, 1, graph.heads, 1};
  }
  return layout;
}

}  // namespace

CudnnLayout layout_of(const CudnnGraphKey& graph, CudnnOperand operand) {
  switch (operand) {
    case CudnnOperand::q:
    case CudnnOperand::out_grad:
      return query_layout(graph, graph.storage, Results::in_place);
    case CudnnOperand::k:
    case CudnnOperand::v:
      return key_layout(graph, graph.storage);
    case CudnnOperand::out:
      return query_layout(graph, graph.out, is_backward(graph) ? Results::in_place : graph.results);
    case CudnnOperand::lse:
      return lse_layout(graph);
    case CudnnOperand::query_grad:
      return query_layout(graph, graph.query_grad, graph.results);
    case CudnnOperand::key_grad:
    case CudnnOperand::value_grad:
      return key_layout(graph, graph.kv_grad);
  }
  throw InternalError("cuDNN's graphs have no such operand");
}

std::int64_t packed_bytes(const CudnnGraphKey& graph) {
  const std::int64_t lse = packs_lse(graph) ? aligned(graph.sequences * graph.queries * graph.heads * 4) : 0;
  return packed_rows_bytes(graph) + lse;
}

CudnnCall::CudnnCall(const AttentionTask& task, const CudnnPlan& plan, const KernelArguments& arguments)
    : task_(task),
      graph_(plan.graph),
      arguments_(arguments),
      queries_{task.sequences, task.queries, plan.query_begin, graph_ ? graph_->queries : 0},
      keys_{task.sequences, task.keys, plan.key_begin, graph_ ? graph_->keys : 0},
      packed_(graph_ && is_packed(*graph_)) {
  if (!graph_ || packed_bytes(*graph_) == 0) return;
  packed_rows_ = reinterpret_cast<float*>(arguments.workspace);
  packed_lse_ = reinterpret_cast<float*>(arguments.workspace + packed_rows_bytes(*graph_));
}

std::byte* CudnnCall::query_row(std::byte* data, AttentionType type) const {
  return data + queries_.begin * task_.heads * task_.head_dim * bytes_of(type);
}

std::byte* CudnnCall::key_row(std::byte* data, AttentionType type, std::int64_t part) const {
  return data + (keys_.begin * 2 + part) * task_.kv_heads * task_.head_dim * bytes_of(type);
}

std::byte* CudnnCall::at(CudnnOperand operand) const {
  const auto inputs = arguments_.inputs, outputs = arguments_.outputs;
  const bool forward = task_.direction == AttentionDirection::forward;
  std::byte* const packed = reinterpret_cast<std::byte*>(packed_rows_);
  switch (operand) {
    case CudnnOperand::q:
      return query_row(inputs[0].data, task_.storage);
    case CudnnOperand::k:
      return key_row(inputs[1].data, task_.storage, 0);
    case CudnnOperand::v:
      return key_row(inputs[1].data, task_.storage, 1);
    case CudnnOperand::out:
      return forward && packed_ ? packed : query_row(forward ? outputs[0].data : inputs[4].data, task_.out);
    case CudnnOperand::lse:
      if (packs_lse(*graph_)) return reinterpret_cast<std::byte*>(packed_lse_);
      return outputs[1].data + queries_.begin * task_.heads * bytes_of(task_.lse);
    case CudnnOperand::out_grad:
      return query_row(inputs[6].data, task_.storage);
    case CudnnOperand::query_grad:
      return packed_ ? packed : query_row(outputs[0].data, task_.query_grad);
    case CudnnOperand::key_grad:
      return key_row(outputs[1].data, task_.kv_grad, 0);
    case CudnnOperand::value_grad:
      return key_row(outputs[1].data, task_.kv_grad, 1);
  }
  throw InternalError("cuDNN's graphs have no such operand");
}

}  // namespace annulus
