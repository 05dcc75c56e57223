#include "runtime/cuda/cudnn_operands.h"

#include <utility>

#include "runtime/core/error.h"

namespace annulus {
namespace {

using Results = CudnnGraphKey::Results;

std::int64_t rounded_up(std::int64_t bytes) { return (bytes + 255) / 256 * 256; }
bool is_packed(const CudnnGraphKey& graph) { return graph.results == Results::packed; }
bool is_backward(const CudnnGraphKey& graph) { return graph.direction == AttentionDirection::backward; }

/// cuDNN's backward reads no other log-sum-exp than a packed one before 9.26.
bool packs_lse(const CudnnGraphKey& graph) { return is_packed(graph) || is_backward(graph); }

std::int64_t packed_rows_bytes(const CudnnGraphKey& graph) {
  return is_packed(graph) ? rounded_up(graph.sequences * graph.queries * graph.heads * graph.head_dim * 4) : 0;
}

std::int64_t packed_lse_bytes(const CudnnGraphKey& graph) {
  return packs_lse(graph) ? rounded_up(graph.sequences * graph.queries * graph.heads * 4) : 0;
}
std::int64_t packed_keys_bytes(const CudnnGraphKey& graph) {
  if (graph.key_results == Results::in_place) return 0;
  return rounded_up(graph.sequences * graph.keys * 2 * graph.kv_heads * graph.head_dim * size_of(graph.kv_grad));
}

CudnnLayout query_layout(const CudnnGraphKey& graph, DType type, Results results) {
  const std::int64_t row = graph.heads * graph.head_dim;
  const std::int64_t positions = results == Results::in_place ? graph.query_positions : graph.queries;
  return {
      type, {graph.sequences, graph.heads, graph.queries, graph.head_dim}, {positions * row, graph.head_dim, row, 1}};
}

CudnnLayout key_layout(const CudnnGraphKey& graph, DType type, Results results) {
  const std::int64_t row = 2 * graph.kv_heads * graph.head_dim;
  const std::int64_t positions = results == Results::in_place ? graph.key_positions : graph.keys;
  return {
      type, {graph.sequences, graph.kv_heads, graph.keys, graph.head_dim}, {positions * row, graph.head_dim, row, 1}};
}

CudnnLayout lse_layout(const CudnnGraphKey& graph) {
  CudnnLayout layout{DType::f32, {graph.sequences, graph.heads, graph.queries, 1}, {}};
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
      return key_layout(graph, graph.storage, Results::in_place);
    case CudnnOperand::out:
      return query_layout(graph, graph.out, is_backward(graph) ? Results::in_place : graph.results);
    case CudnnOperand::lse:
      return lse_layout(graph);
    case CudnnOperand::query_grad:
      return query_layout(graph, graph.query_grad, graph.results);
    case CudnnOperand::key_grad:
    case CudnnOperand::value_grad:
      return key_layout(graph, graph.kv_grad, graph.key_results);
  }
  throw InternalError("cuDNN's graphs have no such operand");
}

std::int64_t packed_bytes(const CudnnGraphKey& graph) {
  return packed_rows_bytes(graph) + packed_lse_bytes(graph) + packed_keys_bytes(graph);
}

CudnnCall::CudnnCall(const AttentionTask& task, const CudnnPlan& plan, const KernelArguments& arguments)
    : task_(task),
      graph_(plan.graph),
      arguments_(arguments),
      queries_{task.sequences, task.queries, plan.query_begin, graph_ ? graph_->queries : 0},
      keys_{task.sequences, task.keys, plan.key_begin, graph_ ? graph_->keys : 0},
      packed_(graph_ && is_packed(*graph_)) {
  if (!graph_) return;
  std::byte* at = arguments.workspace;
  const auto take = [&](std::int64_t bytes) { return bytes > 0 ? std::exchange(at, at + bytes) : nullptr; };
  packed_rows_ = reinterpret_cast<float*>(take(packed_rows_bytes(*graph_)));
  packed_lse_ = reinterpret_cast<float*>(take(packed_lse_bytes(*graph_)));
  packed_keys_ = take(packed_keys_bytes(*graph_));
}

std::byte* CudnnCall::query_row(std::byte* data, DType type) const {
  return data + queries_.begin * task_.heads * task_.head_dim * size_of(type);
}

std::byte* CudnnCall::key_row(std::byte* data, DType type, std::int64_t part) const {
  return data + (keys_.begin * 2 + part) * task_.kv_heads * task_.head_dim * size_of(type);
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
      return outputs[1].data + queries_.begin * task_.heads * size_of(task_.lse);
    case CudnnOperand::out_grad:
      return query_row(inputs[6].data, task_.storage);
    case CudnnOperand::query_grad:
      return packed_ ? packed : query_row(outputs[0].data, task_.query_grad);
    case CudnnOperand::key_grad:
    case CudnnOperand::value_grad: {
      const std::int64_t part = operand == CudnnOperand::key_grad ? 0 : 1;
      if (packed_keys_ == nullptr) return key_row(outputs[1].data, task_.kv_grad, part);
      return packed_keys_ + part * task_.kv_heads * task_.head_dim * size_of(graph_->kv_grad);
    }
  }
  throw InternalError("cuDNN's graphs have no such operand");
}

}  // namespace annulus
