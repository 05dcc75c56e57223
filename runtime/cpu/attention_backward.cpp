#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>

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
    const std::int64_t tile = sizes.tile_columns<T>();
    const std::int64_t rows = tile * padded_columns<T>(sizes.head_dim), columns = tile * sizes.head_dim;
    keys = carver.take<T>(rows);
    keys_transposed = carver.take<T>(columns);
    values_transposed = carver.take<T>(columns);
    key_grad = carver.take<T>(rows);
    value_grad = carver.take<T>(rows);
    probabilities = carver.take<T>(kQueryTile * tile);
    slopes = carver.take<T>(kQueryTile * tile);
    factors = carver.take<T>(kKeyTile);
  }
};

/// Of every head, packed: queries, in units that make scores powers of 2; dout; what its rows subtract, which is their
/// log-sum-exp in those units and rowsum(dout * out); and dq. How far each key tile has come. One key tile a thread.
template <class T>
struct BackwardWorkspace {
  std::int64_t columns, width, bytes;  ///< of a tile of scores; of a row of a head
  T *queries, *output_grad, *minus_lse, *minus_delta, *query_grad;
  std::int32_t* progress;
  std::vector<KeyState<T>> states;

  BackwardWorkspace(std::byte* memory, const AttentionSizes& sizes)
      : columns(sizes.tile_columns<T>()), width(padded_columns<T>(sizes.head_dim)) {
    WorkspaceCarver carver(memory);
    const std::int64_t rows = sizes.sequences * sizes.heads * sizes.queries;
    queries = carver.take<T>(rows * width);
    output_grad = carver.take<T>(rows * width);
    minus_lse = carver.take<T>(rows);
    minus_delta = carver.take<T>(rows);
    query_grad = carver.take<T>(rows * width);
    progress = carver.take<std::int32_t>(sizes.sequences * sizes.kv_heads * sizes.key_tiles());
    for (int thread = 0; thread < thread_count(); ++thread) states.emplace_back(carver, sizes);
    bytes = carver.used();
  }
};

/// A task is a key tile of a kv head, with all query heads that read it, and makes its dk and dv. All key tiles add to
/// dq: a tile of dq takes them in their order, whichever threads they are on, by waiting for the key tile before. Tasks
/// begin in their order, so that what is waited for has begun.
template <class T>
class BackwardKernel {
 public:
  BackwardKernel(const AttentionStepGrad& op, const KernelArguments& arguments)
      : op_(op),
        arguments_(arguments),
        sizes_(op.composite(), arguments.inputs[0].shape, arguments.inputs[1].shape),
        workspace_(arguments.workspace, sizes_),
        kernels_(tile_kernels<T>()),
        width_(workspace_.width) {
    if (workspace_.bytes > arguments.workspace_bytes)
      throw InternalError("attention_step_grad: the workspace is too small");
  }

  void run() {
    const std::int64_t units = sizes_.sequences * sizes_.kv_heads, key_tiles = sizes_.key_tiles();
    const std::int64_t query_tiles = sizes_.query_tiles(), all_tiles = sizes_.sequences * query_tiles;
    const auto rows_of_all_heads = [&](std::int64_t tile) {
      return query_rows(tile / query_tiles, tile % query_tiles, 0, sizes_.heads);
    };
    if (!has_its_queries()) parallel_tasks(all_tiles, [&](std::int64_t tile, int) { pack(rows_of_all_heads(tile)); });
    std::fill_n(workspace_.progress, units * key_tiles, 0);
    std::atomic<std::int64_t> pairs = 0;
    parallel_tasks(units * key_tiles, [&](std::int64_t task, int thread) {
      const std::int64_t unit = task % units, sequence = unit / sizes_.kv_heads, head = unit % sizes_.kv_heads;
      const auto own_rows = [&](std::int64_t tile) {
        return query_rows(sequence, tile, head * sizes_.group(), sizes_.group());
      };
      for (std::int64_t tile = 0; has_its_queries() && tile < query_tiles; ++tile) pack(own_rows(tile));
      pairs += differentiate(unit, task / units, workspace_.states[static_cast<std::size_t>(thread)]);
      for (std::int64_t tile = 0; has_its_queries() && tile < query_tiles; ++tile) store_query_grad(own_rows(tile));
    });
    if (!has_its_queries())
      parallel_tasks(all_tiles, [&](std::int64_t tile, int) { store_query_grad(rows_of_all_heads(tile)); });
    arguments_.counters->attended_pairs += pairs;
  }

 private:
  /// Rows of some heads of a query tile: the first one's place in operands [rows, A*H], and in what is packed.
  struct QueryRows {
    std::int64_t count, heads, first_head, first_row, packed;
    bool used;  ///< some key is attended
  };
  QueryRows query_rows(std::int64_t sequence, std::int64_t tile, std::int64_t head, std::int64_t heads) const {
    const std::int64_t first = tile * kQueryTile, count = std::min(kQueryTile, sizes_.queries - first);
    return {count,
            heads,
            head,
            sequence * sizes_.queries + first,
            (sequence * sizes_.heads + head) * sizes_.queries + first,
            op_.first() || any_has_queries(op_.blocks(), first, first + count)};
  }
  /// Whether no other task reads the queries that a task reads: then it packs them itself, where they stay in its
  /// cache.
  bool has_its_queries() const { return sizes_.key_tiles() == 1; }
  std::int64_t row_stride() const { return sizes_.heads * sizes_.head_dim; }
  std::int64_t at(const QueryRows& rows, std::int64_t row) const {
    return (rows.first_row + row) * row_stride() + rows.first_head * sizes_.head_dim;
  }
  /// One row of some heads, packed.
  TileOf<T> packed_row(T* operand, const QueryRows& rows, std::int64_t row) const {
    return {operand + (rows.packed + row) * width_, sizes_.queries * width_};
  }

  /// Row by row, since the heads of a row lie together.
  void pack(const QueryRows& rows) {
    if (!rows.used) return;
    const T unit = static_cast<T>(sizes_.scale() * kLog2E<double>);
    const std::int64_t dim = sizes_.head_dim;
    for (std::int64_t i = 0; i < rows.count; ++i) {
      const T *out = arguments_.inputs[4].as<T>() + at(rows, i), *dout = arguments_.inputs[6].as<T>() + at(rows, i);
      const T* lse = arguments_.inputs[5].as<T>() + (rows.first_row + i) * sizes_.heads + rows.first_head;
      kernels_.scale(rows.heads, dim, unit, {arguments_.inputs[0].as<T>() + at(rows, i), dim},
                     packed_row(workspace_.queries, rows, i), width_);
      kernels_.scale(rows.heads, dim, T(1), {dout, dim}, packed_row(workspace_.output_grad, rows, i), width_);
      for (std::int64_t head = 0; head < rows.heads; ++head) {
        const std::int64_t packed = rows.packed + i + head * sizes_.queries;
        T sum = 0;
#pragma omp simd reduction(+ : sum)
        for (std::int64_t j = head * dim; j < (head + 1) * dim; ++j) sum += out[j] * dout[j];
        workspace_.minus_delta[packed] = -sum;
        workspace_.minus_lse[packed] = -kLog2E<T> * lse[head];
        std::fill_n(workspace_.query_grad + packed * width_, width_, T(0));
      }
    }
  }

  void store_query_grad(const QueryRows& rows) {
    if (!rows.used) return;
    for (std::int64_t i = 0; i < rows.count; ++i) {
      T* to = arguments_.outputs[0].as<T>() + at(rows, i);
      const TileOf<T> from = packed_row(workspace_.query_grad, rows, i);
      if (op_.first()) {
        kernels_.scale(rows.heads, sizes_.head_dim, T(1), {from.data, from.row_stride}, {to, sizes_.head_dim}, 0);
        continue;
      }
      for (std::int64_t head = 0; head < rows.heads; ++head) {
#pragma omp simd
        for (std::int64_t j = 0; j < sizes_.head_dim; ++j)
          to[head * sizes_.head_dim + j] += from.data[head * from.row_stride + j];
      }
    }
  }

  /// Returns the pairs visited.
  std::int64_t differentiate(std::int64_t unit, std::int64_t key_tile, KeyState<T>& state) {
    const std::int64_t sequence = unit / sizes_.kv_heads, kv_head = unit % sizes_.kv_heads;
    const AttentionDropout dropout(op_.composite(), arguments_.inputs[2], arguments_.inputs[3],
                                   sequence * sizes_.queries);
    std::int32_t* progress = workspace_.progress + unit * sizes_.key_tiles() + key_tile;
    load_keys(sequence, kv_head, key_tile, state);
    std::int64_t pairs = 0;
    std::int32_t done = 0;
    for (std::int64_t head = kv_head * sizes_.group(); head < (kv_head + 1) * sizes_.group(); ++head) {
      const std::int64_t packed = (sequence * sizes_.heads + head) * sizes_.queries;
      for (std::int64_t tile = 0; tile < sizes_.query_tiles(); ++tile) {
        bool waited = false;
        for (const AttentionBlock& block : op_.blocks()) {
          const std::optional<TileCut> cut = cut_tile(block, tile, key_tile);
          if (!cut) continue;
          score_tile(*cut, key_tile * kKeyTile, packed, head, dropout, state);
          accumulate_key_grad(*cut, key_tile * kKeyTile, packed, state);
          if (!std::exchange(waited, true) && key_tile > 0) wait_for(progress[-1], done);
          accumulate_query_grad(*cut, key_tile * kKeyTile, packed, state);
          pairs += cut->pairs();
        }
        if (!waited && key_tile > 0) wait_for(progress[-1], done);
        std::atomic_ref(*progress).store(++done, std::memory_order_release);
      }
    }
    store_key_grad(sequence, kv_head, key_tile, state);
    return pairs;
  }

  static void wait_for(std::int32_t& progress, std::int32_t done) {
    while (std::atomic_ref(progress).load(std::memory_order_acquire) <= done) std::this_thread::yield();
  }

  /// `probabilities` (dropped ones 0) and `slopes`, the gradient of the scores, for the rows of the cut: row i of the
  /// cut is row i of both. Keys of the cut that a row does not see get 0.
  void score_tile(const TileCut& cut, std::int64_t first_key, std::int64_t packed, std::int64_t head,
                  const AttentionDropout& dropout, KeyState<T>& state) {
    for (std::int64_t begin = cut.query_begin; begin < cut.query_end;) {
      const std::int64_t end = cut.panel_end(begin), columns = cut.key_limit(end - 1) - first_key;
      // gradients of keys are summed for a panel of keys at once, some of which its first queries do not see
      const std::int64_t cleared = std::min(cut.key_end - first_key, columns + kCutPanel);
      const std::int64_t offset = (begin - cut.query_begin) * workspace_.columns, row = packed + begin;
      const TileOf<T> probabilities{state.probabilities + offset, workspace_.columns},
          slopes{state.slopes + offset, workspace_.columns};
      kernels_.product(end - begin, columns, sizes_.head_dim, {workspace_.queries + row * width_, width_, 1},
                       {state.keys_transposed, workspace_.columns}, probabilities, TileUpdate::overwrite,
                       workspace_.minus_lse + row);
      kernels_.product(end - begin, columns, sizes_.head_dim, {workspace_.output_grad + row * width_, width_, 1},
                       {state.values_transposed, workspace_.columns}, slopes, TileUpdate::overwrite,
                       dropout.active() ? nullptr : workspace_.minus_delta + row);
      if (!dropout.active()) {
        kernels_.slope({end - begin, cleared, cut.visible(begin, first_key), probabilities, slopes});
      }
      for (std::int64_t query = begin; dropout.active() && query < end; ++query) {
        const std::int64_t at = (query - begin) * workspace_.columns;
        slope_dropped(cut, query, cleared, first_key, head, workspace_.minus_delta[packed + query], dropout,
                      {probabilities.data + at, 0}, {slopes.data + at, 0}, state.factors);
      }
      begin = end;
    }
  }

  void slope_dropped(const TileCut& cut, std::int64_t query, std::int64_t columns, std::int64_t first_key,
                     std::int64_t head, T minus_delta, const AttentionDropout& dropout, TileOf<T> probabilities,
                     TileOf<T> slopes, T* factors) {
    const std::int64_t from = cut.key_begin - first_key, to = cut.key_limit(query) - first_key;
    dropout.factors(cut, head, query, factors);
#pragma omp simd
    for (std::int64_t j = from; j < to; ++j) slopes.data[j] = slopes.data[j] * factors[j - from] + minus_delta;
    kernels_.slope({1, columns, cut.visible(query, first_key), probabilities, slopes});
#pragma omp simd
    for (std::int64_t j = from; j < to; ++j) probabilities.data[j] *= factors[j - from];
  }

  /// dv += p^T dout, dk += ds^T q.
  void accumulate_key_grad(const TileCut& cut, std::int64_t first_key, std::int64_t packed, KeyState<T>& state) {
    for (std::int64_t key = cut.key_begin; key < cut.key_end;) {
      const std::int64_t rows = cut.key_panel_end(key) - key, column = key - first_key;
      const std::int64_t query = cut.first_query(key), depth = std::max<std::int64_t>(0, cut.query_end - query);
      const std::int64_t from = (query - cut.query_begin) * workspace_.columns + column;
      kernels_.product(rows, sizes_.head_dim, depth, {state.probabilities + from, 1, workspace_.columns},
                       {workspace_.output_grad + (packed + query) * width_, width_},
                       {state.value_grad + column * width_, width_}, TileUpdate::accumulate, nullptr);
      kernels_.product(rows, sizes_.head_dim, depth, {state.slopes + from, 1, workspace_.columns},
                       {workspace_.queries + (packed + query) * width_, width_},
                       {state.key_grad + column * width_, width_}, TileUpdate::accumulate, nullptr);
      key += rows;
    }
  }

  /// dq += ds k.
  void accumulate_query_grad(const TileCut& cut, std::int64_t first_key, std::int64_t packed, KeyState<T>& state) {
    for (std::int64_t begin = cut.query_begin; begin < cut.query_end;) {
      const std::int64_t end = cut.panel_end(begin);
      kernels_.product(end - begin, sizes_.head_dim, cut.key_limit(end - 1) - first_key,
                       {state.slopes + (begin - cut.query_begin) * workspace_.columns, workspace_.columns, 1},
                       {state.keys, width_}, {workspace_.query_grad + (packed + begin) * width_, width_},
                       TileUpdate::accumulate, nullptr);
      begin = end;
    }
  }

  /// Keys with the scale of scores in them, for dq; transposed without.
  void load_keys(std::int64_t sequence, std::int64_t kv_head, std::int64_t tile, KeyState<T>& state) {
    const std::int64_t part = sizes_.kv_heads * sizes_.head_dim, first = tile * kKeyTile;
    const std::int64_t rows = std::min(kKeyTile, sizes_.keys - first);
    std::fill_n(state.key_grad, rows * width_, T(0));
    std::fill_n(state.value_grad, rows * width_, T(0));
    if (!any_has_keys(op_.blocks(), first, first + rows)) return;
    const T* key =
        arguments_.inputs[1].as<T>() + (sequence * sizes_.keys + first) * 2 * part + kv_head * sizes_.head_dim;
    kernels_.scale(rows, sizes_.head_dim, static_cast<T>(sizes_.scale()), {key, 2 * part}, {state.keys, width_},
                   width_);
    kernels_.transpose(rows, sizes_.head_dim, {key, 2 * part}, {state.keys_transposed, workspace_.columns},
                       workspace_.columns);
    kernels_.transpose(rows, sizes_.head_dim, {key + part, 2 * part}, {state.values_transposed, workspace_.columns},
                       workspace_.columns);
  }

  /// dk is of queries in units of scores that are powers of 2.
  void store_key_grad(std::int64_t sequence, std::int64_t kv_head, std::int64_t tile, const KeyState<T>& state) {
    const std::int64_t part = sizes_.kv_heads * sizes_.head_dim, first = tile * kKeyTile;
    const std::int64_t rows = std::min(kKeyTile, sizes_.keys - first);
    T* to = arguments_.outputs[1].as<T>() + (sequence * sizes_.keys + first) * 2 * part + kv_head * sizes_.head_dim;
    kernels_.scale(rows, sizes_.head_dim, kLn2<T>, {state.key_grad, width_}, {to, 2 * part}, 0);
    kernels_.scale(rows, sizes_.head_dim, T(1), {state.value_grad, width_}, {to + part, 2 * part}, 0);
  }

  const AttentionStepGrad& op_;
  const KernelArguments& arguments_;
  AttentionSizes sizes_;
  BackwardWorkspace<T> workspace_;
  const TileKernels<T>& kernels_;
  std::int64_t width_;
};

}  // namespace

std::int64_t workspace_bytes(const AttentionStepGrad& op, OpTypes inputs, OpTypes) {
  const AttentionSizes sizes(op.composite(), inputs[0].shape, inputs[1].shape);
  return dispatch_float(inputs[0].dtype, [&]<class T>(T) { return BackwardWorkspace<T>(nullptr, sizes).bytes; });
}

void run(const AttentionStepGrad& op, const KernelArguments& arguments) {
  if (!op.first()) bring_results(arguments.inputs[7], arguments.outputs[0]);
  dispatch_float(arguments.outputs[0].dtype, [&]<class T>(T) { BackwardKernel<T>(op, arguments).run(); });
}

}  // namespace annulus
