#include <atomic>

#include "runtime/core/math.h"
#include "runtime/cpu/attention_tiles.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/parallel.h"

namespace annulus {
namespace {

/// A key tile in work, with its gradients, and the tile of scores.
template <class T>
struct KeyState {
  T *keys, *keys_transposed, *values_transposed, *key_grad, *value_grad, *probabilities, *slopes, *factors;

  KeyState(WorkspaceCarver& carver, const AttentionSizes& sizes) {
    const std::int64_t rows = kAttentionTile * padded_to_vector<T>(sizes.head_dim),
                       columns = kAttentionTile * sizes.head_dim;
    keys = carver.take<T>(rows);
    keys_transposed = carver.take<T>(columns);
    values_transposed = carver.take<T>(columns);
    key_grad = carver.take<T>(rows);
    value_grad = carver.take<T>(rows);
    probabilities = carver.take<T>(kAttentionTile * kAttentionTile);
    slopes = carver.take<T>(kAttentionTile * kAttentionTile);
    factors = carver.take<T>(kAttentionTile);
  }
};

/// Queries (scaled) and dout of every head, packed; rowsum(dout * out); dq by part; and one key tile a thread.
///
/// A sequence and kv head is the work of `parts` tasks, each with every parts-th key tile, so that all threads have
/// work. dq, to which all key tiles contribute, is summed by part, then over the parts in their order.
template <class T>
struct BackwardWorkspace {
  std::int64_t parts, bytes;
  T *queries, *output_grad, *delta, *query_grad;
  std::vector<KeyState<T>> states;

  BackwardWorkspace(std::byte* memory, const AttentionSizes& sizes) : parts(parts_of(sizes)) {
    WorkspaceCarver carver(memory);
    const std::int64_t rows = sizes.sequences * sizes.heads * sizes.queries;
    const std::int64_t elements = rows * padded_to_vector<T>(sizes.head_dim);
    queries = carver.take<T>(elements);
    output_grad = carver.take<T>(elements);
    delta = carver.take<T>(rows);
    query_grad = carver.take<T>(elements * parts);
    for (int thread = 0; thread < thread_count(); ++thread) states.emplace_back(carver, sizes);
    bytes = carver.used();
  }

  static std::int64_t parts_of(const AttentionSizes& sizes) {
    const std::int64_t threads = thread_count(), units = sizes.sequences * sizes.kv_heads;
    const std::int64_t most = std::max<std::int64_t>(1, attention_tiles(sizes.keys));
    std::int64_t count = 1;
    while (count < most && units * count % threads != 0 && units * count < 4 * threads) ++count;
    return count;
  }
};

template <class T>
class BackwardKernel {
 public:
  BackwardKernel(const AttentionStepGrad& op, const KernelArguments& arguments)
      : op_(op),
        arguments_(arguments),
        sizes_(op.composite(), arguments.inputs[0].shape, arguments.inputs[1].shape),
        workspace_(arguments.workspace, sizes_),
        width_(padded_to_vector<T>(sizes_.head_dim)) {
    if (workspace_.bytes > arguments.workspace_bytes)
      throw InternalError("attention_step_grad: the workspace is too small");
  }

  void run() {
    const std::int64_t heads = sizes_.sequences * sizes_.heads;
    parallel_tasks(heads, [&](std::int64_t task, int) { pack(task / sizes_.heads, task % sizes_.heads); });
    std::atomic<std::int64_t> pairs = 0;
    parallel_tasks(sizes_.sequences * sizes_.kv_heads * workspace_.parts, [&](std::int64_t task, int thread) {
      pairs += differentiate(task / workspace_.parts, task % workspace_.parts,
                             workspace_.states[static_cast<std::size_t>(thread)]);
    });
    parallel_tasks(heads, [&](std::int64_t task, int) { store_query_grad(task / sizes_.heads, task % sizes_.heads); });
    arguments_.counters->attended_pairs += pairs;
  }

 private:
  /// Index of the first of a head's rows in the packed arrays.
  std::int64_t packed_row(std::int64_t sequence, std::int64_t head) const {
    return (sequence * sizes_.heads + head) * sizes_.queries;
  }
  T* query_grad(std::int64_t part, std::int64_t packed) const {
    return workspace_.query_grad + (part * sizes_.sequences * sizes_.heads * sizes_.queries + packed) * width_;
  }

  void pack(std::int64_t sequence, std::int64_t head) {
    const std::int64_t stride = sizes_.heads * sizes_.head_dim, packed = packed_row(sequence, head);
    const std::int64_t at = sequence * sizes_.queries * stride + head * sizes_.head_dim;
    const T *out = arguments_.inputs[4].as<T>() + at, *dout = arguments_.inputs[6].as<T>() + at;
    pack_rows(arguments_.inputs[0].as<T>() + at, stride, sizes_.queries, sizes_.head_dim,
              static_cast<T>(sizes_.scale()), workspace_.queries + packed * width_, width_, sizes_.queries);
    pack_rows(dout, stride, sizes_.queries, sizes_.head_dim, T(1), workspace_.output_grad + packed * width_, width_,
              sizes_.queries);
    for (std::int64_t row = 0; row < sizes_.queries; ++row) {
      T sum = 0;
#pragma omp simd reduction(+ : sum)
      for (std::int64_t j = 0; j < sizes_.head_dim; ++j) sum += out[row * stride + j] * dout[row * stride + j];
      workspace_.delta[packed + row] = sum;
    }
  }

  /// Every parts-th key tile of a kv head, against all query heads that read it. Returns the pairs visited.
  std::int64_t differentiate(std::int64_t sequence_head, std::int64_t part, KeyState<T>& state) {
    const std::int64_t sequence = sequence_head / sizes_.kv_heads, kv_head = sequence_head % sizes_.kv_heads;
    const std::int64_t first_head = kv_head * sizes_.group();
    const AttentionDropout dropout(op_.composite(), arguments_.inputs[2], arguments_.inputs[3],
                                   sequence * sizes_.queries);
    std::fill_n(query_grad(part, packed_row(sequence, first_head)), sizes_.group() * sizes_.queries * width_, T(0));
    std::int64_t pairs = 0;
    for (std::int64_t tile = part; tile < attention_tiles(sizes_.keys); tile += workspace_.parts) {
      load_keys(sequence, kv_head, tile, state);
      for (const AttentionBlock& block : op_.blocks()) {
        for (std::int64_t head = first_head; head < first_head + sizes_.group(); ++head) {
          pairs += differentiate_block(block, sequence, head, part, tile, dropout, state);
        }
      }
      store_key_grad(sequence, kv_head, tile, state);
    }
    return pairs;
  }

  std::int64_t differentiate_block(const AttentionBlock& block, std::int64_t sequence, std::int64_t head,
                                   std::int64_t part, std::int64_t key_tile, const AttentionDropout& dropout,
                                   KeyState<T>& state) {
    std::int64_t pairs = 0;
    for (std::int64_t tile = block.query_begin / kAttentionTile; tile * kAttentionTile < block.query_end; ++tile) {
      const std::optional<TileCut> cut = cut_tile(block, tile, key_tile);
      if (!cut) continue;
      score_tile(*cut, key_tile * kAttentionTile, sequence, head, dropout, state);
      accumulate_tile(*cut, key_tile * kAttentionTile, packed_row(sequence, head), part, state);
      pairs += cut->pairs();
    }
    return pairs;
  }

  /// `probabilities` (dropped ones 0) and `slopes`, the gradient of the scores, for the rows of the cut: row i of the
  /// cut is row i of both. Keys of the cut that a row does not see get 0.
  void score_tile(const TileCut& cut, std::int64_t first_key, std::int64_t sequence, std::int64_t head,
                  const AttentionDropout& dropout, KeyState<T>& state) {
    const std::int64_t packed = packed_row(sequence, head);
    for (std::int64_t begin = cut.query_begin; begin < cut.query_end;) {
      const std::int64_t end = cut.panel_end(begin), columns = cut.key_limit(end - 1) - first_key;
      const std::int64_t at = (begin - cut.query_begin) * kAttentionTile, row = (packed + begin) * width_;
      tile_product<T>(end - begin, columns, sizes_.head_dim, {workspace_.queries + row, width_, 1},
                      {state.keys_transposed, kAttentionTile}, {state.probabilities + at, kAttentionTile},
                      TileUpdate::overwrite);
      tile_product<T>(end - begin, columns, sizes_.head_dim, {workspace_.output_grad + row, width_, 1},
                      {state.values_transposed, kAttentionTile}, {state.slopes + at, kAttentionTile},
                      TileUpdate::overwrite);
      for (std::int64_t query = begin; query < end; ++query) {
        score_row(cut, first_key, sequence, head, query, dropout, state);
      }
      begin = end;
    }
  }

  void score_row(const TileCut& cut, std::int64_t first_key, std::int64_t sequence, std::int64_t head,
                 std::int64_t query, const AttentionDropout& dropout, KeyState<T>& state) {
    T* probabilities = state.probabilities + (query - cut.query_begin) * kAttentionTile;
    T* slopes = state.slopes + (query - cut.query_begin) * kAttentionTile;
    const std::int64_t from = cut.key_begin - first_key, to = cut.key_limit(query) - first_key;
    const T lse = arguments_.inputs[5].as<T>()[(sequence * sizes_.queries + query) * sizes_.heads + head];
    const T delta = workspace_.delta[packed_row(sequence, head) + query];
    if (dropout.active()) {
      dropout.factors(cut, head, query, state.factors);
#pragma omp simd
      for (std::int64_t j = from; j < to; ++j) {
        const T factor = state.factors[j - from], probability = exponential(probabilities[j] - lse);
        slopes[j] = probability * (slopes[j] * factor - delta);
        probabilities[j] = probability * factor;
      }
    } else {
#pragma omp simd
      for (std::int64_t j = from; j < to; ++j) {
        probabilities[j] = exponential(probabilities[j] - lse);
        slopes[j] = probabilities[j] * (slopes[j] - delta);
      }
    }
    for (T* row : {probabilities, slopes}) {
      std::fill(row, row + from, T(0));
      std::fill(row + to, row + (cut.key_end - first_key), T(0));
    }
  }

  /// dv += p^T dout, dk += ds^T q, dq += ds k.
  void accumulate_tile(const TileCut& cut, std::int64_t first_key, std::int64_t packed, std::int64_t part,
                       KeyState<T>& state) {
    for (std::int64_t key = cut.key_begin; key < cut.key_end;) {
      const std::int64_t rows = cut.key_panel_end(key) - key, column = key - first_key;
      const std::int64_t query = cut.first_query(key), at = (query - cut.query_begin) * kAttentionTile + column;
      const std::int64_t depth = std::max<std::int64_t>(0, cut.query_end - query);
      tile_product<T>(rows, sizes_.head_dim, depth, {state.probabilities + at, 1, kAttentionTile},
                      {workspace_.output_grad + (packed + query) * width_, width_},
                      {state.value_grad + column * width_, width_}, TileUpdate::accumulate);
      tile_product<T>(rows, sizes_.head_dim, depth, {state.slopes + at, 1, kAttentionTile},
                      {workspace_.queries + (packed + query) * width_, width_},
                      {state.key_grad + column * width_, width_}, TileUpdate::accumulate);
      key += rows;
    }
    for (std::int64_t begin = cut.query_begin; begin < cut.query_end;) {
      const std::int64_t end = cut.panel_end(begin), columns = cut.key_limit(end - 1) - first_key;
      tile_product<T>(end - begin, sizes_.head_dim, columns,
                      {state.slopes + (begin - cut.query_begin) * kAttentionTile, kAttentionTile, 1},
                      {state.keys, width_}, {query_grad(part, packed + begin), width_}, TileUpdate::accumulate);
      begin = end;
    }
  }

  void load_keys(std::int64_t sequence, std::int64_t kv_head, std::int64_t tile, KeyState<T>& state) {
    const std::int64_t stride = 2 * sizes_.kv_heads * sizes_.head_dim, first = tile * kAttentionTile;
    const std::int64_t rows = std::min(kAttentionTile, sizes_.keys - first);
    const T* key = arguments_.inputs[1].as<T>() + (sequence * sizes_.keys + first) * stride + kv_head * sizes_.head_dim;
    pack_rows(key, stride, rows, sizes_.head_dim, T(1), state.keys, width_, kAttentionTile);
    pack_transposed(key, stride, rows, sizes_.head_dim, state.keys_transposed);
    pack_transposed(key + stride / 2, stride, rows, sizes_.head_dim, state.values_transposed);
    std::fill_n(state.key_grad, rows * width_, T(0));
    std::fill_n(state.value_grad, rows * width_, T(0));
  }

  void store_key_grad(std::int64_t sequence, std::int64_t kv_head, std::int64_t tile, const KeyState<T>& state) {
    const std::int64_t stride = 2 * sizes_.kv_heads * sizes_.head_dim, first = tile * kAttentionTile;
    for (std::int64_t row = 0; row < std::min(kAttentionTile, sizes_.keys - first); ++row) {
      T* to =
          arguments_.outputs[1].as<T>() + (sequence * sizes_.keys + first + row) * stride + kv_head * sizes_.head_dim;
      std::copy_n(state.key_grad + row * width_, sizes_.head_dim, to);
      std::copy_n(state.value_grad + row * width_, sizes_.head_dim, to + stride / 2);
    }
  }

  void store_query_grad(std::int64_t sequence, std::int64_t head) {
    const T scale = static_cast<T>(sizes_.scale());
    for (std::int64_t query = 0; query < sizes_.queries; ++query) {
      T* to =
          arguments_.outputs[0].as<T>() + ((sequence * sizes_.queries + query) * sizes_.heads + head) * sizes_.head_dim;
      if (op_.first()) std::fill_n(to, sizes_.head_dim, T(0));
      for (std::int64_t part = 0; part < workspace_.parts; ++part) {
        const T* from = query_grad(part, packed_row(sequence, head) + query);
#pragma omp simd
        for (std::int64_t j = 0; j < sizes_.head_dim; ++j) to[j] += scale * from[j];
      }
    }
  }

  const AttentionStepGrad& op_;
  const KernelArguments& arguments_;
  AttentionSizes sizes_;
  BackwardWorkspace<T> workspace_;
  std::int64_t width_;
};

}  // namespace

std::int64_t workspace_bytes(const AttentionStepGrad& op, OpTypes inputs, OpTypes) {
  const AttentionSizes sizes(op.composite(), inputs[0].shape, inputs[1].shape);
  return dispatch_float(inputs[0].dtype, [&]<class T>(T) { return BackwardWorkspace<T>(nullptr, sizes).bytes; });
}

void run(const AttentionStepGrad& op, const KernelArguments& arguments) {
  dispatch_float(arguments.outputs[0].dtype, [&]<class T>(T) { BackwardKernel<T>(op, arguments).run(); });
}

}  // namespace annulus
