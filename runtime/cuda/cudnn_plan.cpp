#include "runtime/cuda/cudnn_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace annulus {
namespace {

using Mask = CudnnGraphKey::Mask;
using Results = CudnnGraphKey::Results;

/// What both directions share.
AttentionTask describe(const Attention& attention, const std::vector<AttentionBlock>& blocks,
                       OpDefinition::Types inputs) {
  AttentionTask task;
  task.blocks = blocks;
  task.dropout_rate = attention.dropout().rate;
  task.sequences = attention.shape().sequences;
  task.head_dim = attention.shape().head_dim;
  task.heads = inputs[0].shape.columns() / task.head_dim;
  task.kv_heads = inputs[1].shape.columns() / 2 / task.head_dim;
  task.queries = inputs[0].shape.rows() / task.sequences;
  task.keys = inputs[1].shape.rows() / task.sequences;
  task.storage = inputs[0].dtype;
  return task;
}

/// Where the visible keys of all blocks begin, and how many each of the rows [query_begin, query_end) sees from there.
/// Row i sees min(keys, first + i - query_begin) of them.
struct Staircase {
  std::int64_t query_begin = 0, query_end = 0, key_begin = 0, first = 0, keys = 0;
};

/// Keys of the block that the local position `row` sees.
std::int64_t seen(const AttentionBlock& block, std::int64_t row) {
  return row < block.query_begin || row >= block.query_end ? 0 : block.visible_keys(row - block.query_begin);
}

/// The blocks as one staircase: empty where nothing is visible, nothing where they do not form one.
std::optional<Staircase> join(const std::vector<AttentionBlock>& blocks, std::int64_t rows) {
  Staircase joined;
  for (std::int64_t row = 0; row < rows; ++row) {
    std::int64_t begin = -1, end = -1;
    for (const AttentionBlock& block : blocks) {  // ordered by key within a row
      const std::int64_t keys = seen(block, row);
      if (keys == 0) continue;
      if (begin >= 0 && block.key_begin != end) return std::nullopt;
      if (begin < 0) begin = block.key_begin;
      end = block.key_begin + keys;
    }
    if (begin < 0) continue;
    if (joined.first == 0) joined = {row, row, begin, end - begin, 0};
    if (row != joined.query_end || begin != joined.key_begin || end - begin < joined.keys) return std::nullopt;
    joined.query_end = row + 1;
    joined.keys = end - begin;
  }
  for (std::int64_t row = joined.query_begin; row < joined.query_end; ++row) {
    std::int64_t keys = 0;
    for (const AttentionBlock& block : blocks) keys += seen(block, row);
    if (keys != std::min(joined.keys, joined.first + row - joined.query_begin)) return std::nullopt;
  }
  return joined;
}

std::string refuse_types(const AttentionTask& task) {
  if (!is_half(task.storage)) return "cuDNN's attention takes bf16 and f16 alone";
  if (task.lse != DType::f32) return "cuDNN's log-sum-exp is f32";
  const auto fits = [&](DType type) { return type == task.storage || type == DType::f32; };
  if (!fits(task.out)) return "out is of another type than q";
  if (!task.first && task.earlier != DType::f32) return "results of several steps are put together in f32 alone";
  if (task.direction == AttentionDirection::forward) return "";
  if (!fits(task.query_grad)) return "dq is of another type than q";
  return fits(task.kv_grad) ? "" : "dkv is of another type than kv";
}

std::string refuse_task(const AttentionTask& task, const CudnnLimits& limits) {
  if (limits.compute_capability < 80) {
    return fmt::format("cuDNN's attention needs compute capability 80, this device has {}", limits.compute_capability);
  }
  if (task.dropout_rate > 0) return "cuDNN's dropout does not know global positions";
  const std::int64_t widest = limits.compute_capability / 10 == 9 ? 256 : 128;
  if (task.head_dim % 8 != 0 || task.head_dim > widest) {
    return fmt::format("heads of {}: cuDNN takes multiples of 8 up to {}", task.head_dim, widest);
  }
  return refuse_types(task);
}

CudnnGraphKey graph_of(const AttentionTask& task, const Staircase& stairs, Determinism determinism) {
  const bool backward = task.direction == AttentionDirection::backward;
  // It has no f32 gradients of keys that several heads share.
  const bool widened = backward && task.kv_grad == DType::f32 && task.heads != task.kv_heads;
  const Mask mask = stairs.first == stairs.keys ? Mask::full : stairs.first == 1 ? Mask::causal : Mask::bottom_right;
  return {.direction = task.direction,
          .mask = mask,
          .results = task.first ? Results::in_place : Results::packed,
          .key_results = widened ? Results::packed : Results::in_place,
          .determinism = backward ? determinism : Determinism::any,
          .storage = task.storage,
          .out = backward || task.first ? task.out : DType::f32,
          .query_grad = task.first ? task.query_grad : DType::f32,
          .kv_grad = widened ? task.storage : task.kv_grad,
          .sequences = task.sequences,
          .heads = task.heads,
          .kv_heads = task.kv_heads,
          .head_dim = task.head_dim,
          .queries = stairs.query_end - stairs.query_begin,
          .keys = stairs.keys,
          .query_positions = task.queries,
          .key_positions = task.keys};
}

CudnnPlan refused(std::string why) { return {.refusal = std::move(why), .graph = std::nullopt}; }

}  // namespace

AttentionTask task_of(const AttentionStep& op, OpDefinition::Types inputs, OpDefinition::Types outputs) {
  AttentionTask task = describe(op.composite(), op.blocks(), inputs);
  task.first = op.first();
  task.out = outputs[0].dtype;
  task.lse = outputs[1].dtype;
  if (!op.first()) task.earlier = inputs[4].dtype;
  return task;
}

AttentionTask task_of(const AttentionStepGrad& op, OpDefinition::Types inputs, OpDefinition::Types outputs) {
  AttentionTask task = describe(op.composite(), op.blocks(), inputs);
  task.direction = AttentionDirection::backward;
  task.first = op.first();
  task.out = inputs[4].dtype;
  task.lse = inputs[5].dtype;
  task.query_grad = outputs[0].dtype;
  task.kv_grad = outputs[1].dtype;
  if (!op.first()) task.earlier = inputs[7].dtype;
  return task;
}

CudnnPlan plan_cudnn(const AttentionTask& task, const CudnnLimits& limits) {
  std::string refusal = refuse_task(task, limits);
  if (!refusal.empty()) return refused(std::move(refusal));
  const std::optional<Staircase> stairs = join(task.blocks, task.queries);
  if (!stairs) return refused("the blocks do not form one staircase");
  if (stairs->first == 0) return {};
  const CudnnGraphKey graph = graph_of(task, *stairs, limits.determinism);
  if (graph.mask != Mask::full && graph.visible_keys(0) != stairs->first) {
    return refused("the diagonal ends above the last row");
  }
  if (graph.direction == AttentionDirection::backward && graph.queries == 1 && graph.keys == 1) {
    return refused("cuDNN has no backward of one query on one key");
  }
  if (const std::int64_t bytes = estimated_workspace_bytes(graph); bytes > limits.workspace_bytes) {
    return refused(fmt::format("cuDNN would want about {} bytes of workspace, more than the limit of {}", bytes,
                               limits.workspace_bytes));
  }
  return {.refusal = "", .graph = graph, .query_begin = stairs->query_begin, .key_begin = stairs->key_begin};
}

std::int64_t estimated_workspace_bytes(const CudnnGraphKey& graph) {
  if (graph.direction == AttentionDirection::forward) return 0;
  const auto round_up = [](std::int64_t size, std::int64_t to) { return (size + to - 1) / to * to; };
  const std::int64_t rows = graph.sequences * graph.heads;
  std::int64_t bytes = rows * graph.queries * 4;  // sums of dout out
  if (graph.determinism == Determinism::bitwise) {
    bytes += rows * round_up(graph.queries, 64) * round_up(graph.keys, 128) * 2;
  } else {
    bytes += rows * graph.queries * graph.head_dim * 4;
  }
  if (graph.heads != graph.kv_heads) bytes += 2 * rows * graph.keys * graph.head_dim * 2;
  return bytes;
}

}  // namespace annulus
