#include <atomic>
#include <limits>

#include "runtime/core/math.h"
#include "runtime/cpu/attention_tiles.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/parallel.h"

namespace annulus {
namespace {

/// A query tile in work: outputs not yet divided by `sum`, relative to exp(`largest`).
template <class T>
struct QueryState {
  T *queries, *output, *scores, *factors, *largest, *sum;

  QueryState(WorkspaceCarver& carver, const AttentionSizes& sizes)
      : queries(carver.take<T>(kAttentionTile * sizes.head_dim)),
        output(carver.take<T>(kAttentionTile * padded_to_vector<T>(sizes.head_dim))),
        scores(carver.take<T>(kAttentionTile * kAttentionTile)),
        factors(carver.take<T>(kAttentionTile)),
        largest(carver.take<T>(kAttentionTile)),
        sum(carver.take<T>(kAttentionTile)) {}
};

/// Keys, transposed, and values of every tile, packed; and one query tile a thread.
template <class T>
struct ForwardWorkspace {
  T *keys, *values;
  std::vector<QueryState<T>> states;
  std::int64_t bytes;

  ForwardWorkspace(std::byte* memory, const AttentionSizes& sizes) {
    WorkspaceCarver carver(memory);
    const std::int64_t tiles = sizes.sequences * sizes.kv_heads * attention_tiles(sizes.keys);
    keys = carver.take<T>(tiles * key_tile_elements(sizes));
    values = carver.take<T>(tiles * value_tile_elements(sizes));
    for (int thread = 0; thread < thread_count(); ++thread) states.emplace_back(carver, sizes);
    bytes = carver.used();
  }
  static std::int64_t key_tile_elements(const AttentionSizes& sizes) { return kAttentionTile * sizes.head_dim; }
  static std::int64_t value_tile_elements(const AttentionSizes& sizes) {
    return kAttentionTile * padded_to_vector<T>(sizes.head_dim);
  }
};

template <class T>
class ForwardKernel {
 public:
  ForwardKernel(const AttentionStep& op, const KernelArguments& arguments)
      : op_(op),
        arguments_(arguments),
        sizes_(op.composite(), arguments.inputs[0].shape, arguments.inputs[1].shape),
        workspace_(arguments.workspace, sizes_),
        width_(padded_to_vector<T>(sizes_.head_dim)) {
    if (workspace_.bytes > arguments.workspace_bytes) throw InternalError("attention_step: the workspace is too small");
  }

  void run() {
    const std::int64_t key_tiles = attention_tiles(sizes_.keys), query_tiles = attention_tiles(sizes_.queries);
    const std::int64_t heads = sizes_.sequences * sizes_.heads;
    parallel_tasks(sizes_.sequences * sizes_.kv_heads * key_tiles,
                   [&](std::int64_t task, int) { pack(task / key_tiles, task % key_tiles); });
    std::atomic<std::int64_t> pairs = 0;
    parallel_tasks(heads * query_tiles, [&](std::int64_t task, int thread) {
      pairs +=
          attend(task % heads, query_tiles - 1 - task / heads, workspace_.states[static_cast<std::size_t>(thread)]);
    });
    arguments_.counters->attended_pairs += pairs;
  }

 private:
  void pack(std::int64_t kv_head, std::int64_t tile) {
    const std::int64_t sequence = kv_head / sizes_.kv_heads, head = kv_head % sizes_.kv_heads;
    const std::int64_t row_width = sizes_.kv_heads * sizes_.head_dim, first = tile * kAttentionTile;
    const std::int64_t rows = std::min(kAttentionTile, sizes_.keys - first);
    const T* key =
        arguments_.inputs[1].as<T>() + (sequence * sizes_.keys + first) * 2 * row_width + head * sizes_.head_dim;
    const std::int64_t at = kv_head * attention_tiles(sizes_.keys) + tile;
    pack_transposed(key, 2 * row_width, rows, sizes_.head_dim,
                    workspace_.keys + at * workspace_.key_tile_elements(sizes_));
    pack_rows(key + row_width, 2 * row_width, rows, sizes_.head_dim, T(1),
              workspace_.values + at * workspace_.value_tile_elements(sizes_), width_, kAttentionTile);
  }

  /// One query tile of one head, on every block. Returns the pairs visited.
  std::int64_t attend(std::int64_t sequence_head, std::int64_t query_tile, QueryState<T>& state) {
    const std::int64_t sequence = sequence_head / sizes_.heads, head = sequence_head % sizes_.heads;
    const std::int64_t kv_head = sequence * sizes_.kv_heads + head / sizes_.group();
    const AttentionDropout dropout(op_.composite(), arguments_.inputs[2], arguments_.inputs[3],
                                   sequence * sizes_.queries);
    load(sequence, head, query_tile, state);
    std::int64_t pairs = 0;
    for (const AttentionBlock& block : op_.blocks()) {
      for (std::int64_t tile = block.key_begin / kAttentionTile; tile * kAttentionTile < block.key_end; ++tile) {
        const std::optional<TileCut> cut = cut_tile(block, query_tile, tile);
        if (!cut) continue;
        const std::int64_t at = kv_head * attention_tiles(sizes_.keys) + tile;
        attend_tile(*cut, query_tile * kAttentionTile, tile * kAttentionTile,
                    workspace_.keys + at * workspace_.key_tile_elements(sizes_),
                    workspace_.values + at * workspace_.value_tile_elements(sizes_), dropout, head, state);
        pairs += cut->pairs();
      }
    }
    store(sequence, head, query_tile, state);
    return pairs;
  }

  void load(std::int64_t sequence, std::int64_t head, std::int64_t query_tile, QueryState<T>& state) {
    const std::int64_t first = query_tile * kAttentionTile, rows = std::min(kAttentionTile, sizes_.queries - first);
    const std::int64_t row = sequence * sizes_.queries + first, stride = sizes_.heads * sizes_.head_dim;
    const std::int64_t at = row * stride + head * sizes_.head_dim;
    pack_rows(arguments_.inputs[0].as<T>() + at, stride, rows, sizes_.head_dim, static_cast<T>(sizes_.scale()),
              state.queries, sizes_.head_dim, rows);
    if (op_.first()) {
      std::fill_n(state.largest, rows, -std::numeric_limits<T>::infinity());
      std::fill_n(state.sum, rows, T(0));
      std::fill_n(state.output, rows * width_, T(0));
      return;
    }
    pack_rows(arguments_.outputs[0].as<T>() + at, stride, rows, sizes_.head_dim, T(1), state.output, width_, rows);
    for (std::int64_t i = 0; i < rows; ++i) {
      state.largest[i] = arguments_.outputs[1].as<T>()[(row + i) * sizes_.heads + head];
      state.sum[i] = state.largest[i] == -std::numeric_limits<T>::infinity() ? T(0) : T(1);
    }
  }

  void store(std::int64_t sequence, std::int64_t head, std::int64_t query_tile, const QueryState<T>& state) {
    const std::int64_t first = query_tile * kAttentionTile, rows = std::min(kAttentionTile, sizes_.queries - first);
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t row = sequence * sizes_.queries + first + i;
      const T* from = state.output + i * width_;
      T* to = arguments_.outputs[0].as<T>() + (row * sizes_.heads + head) * sizes_.head_dim;
      const bool seen = state.sum[i] > 0;
      const T factor = seen ? T(1) / state.sum[i] : T(0);
#pragma omp simd
      for (std::int64_t j = 0; j < sizes_.head_dim; ++j) to[j] = from[j] * factor;
      arguments_.outputs[1].as<T>()[row * sizes_.heads + head] =
          seen ? state.largest[i] + std::log(state.sum[i]) : -std::numeric_limits<T>::infinity();
    }
  }

  void attend_tile(const TileCut& cut, std::int64_t first_query, std::int64_t first_key, const T* keys, const T* values,
                   const AttentionDropout& dropout, std::int64_t head, QueryState<T>& state) {
    for (std::int64_t begin = cut.query_begin; begin < cut.query_end;) {
      const std::int64_t end = cut.panel_end(begin), row = begin - first_query;
      const std::int64_t columns = cut.key_limit(end - 1) - first_key;
      T* scores = state.scores + row * kAttentionTile;
      tile_product<T>(end - begin, columns, sizes_.head_dim,
                      {state.queries + row * sizes_.head_dim, sizes_.head_dim, 1}, {keys, kAttentionTile},
                      {scores, kAttentionTile}, TileUpdate::overwrite);
      for (std::int64_t query = begin; query < end; ++query) {
        T* of_query = state.scores + (query - first_query) * kAttentionTile;
        const std::int64_t from = cut.key_begin - first_key, to = cut.key_limit(query) - first_key;
        exponentiate(of_query, from, to, query - first_query, state);
        std::fill(of_query, of_query + from, T(0));
        std::fill(of_query + to, of_query + columns, T(0));
        if (!dropout.active()) continue;
        dropout.factors(cut, head, query, state.factors);
#pragma omp simd
        for (std::int64_t j = from; j < to; ++j) of_query[j] *= state.factors[j - from];
      }
      tile_product<T>(end - begin, sizes_.head_dim, columns, {scores, kAttentionTile, 1}, {values, width_},
                      {state.output + row * width_, width_}, TileUpdate::accumulate);
      begin = end;
    }
  }

  /// Scores [from, to) of a row become probabilities relative to the row's new maximum; what the row has is rescaled.
  void exponentiate(T* scores, std::int64_t from, std::int64_t to, std::int64_t row, QueryState<T>& state) {
    T largest = state.largest[row];
#pragma omp simd reduction(max : largest)
    for (std::int64_t j = from; j < to; ++j) largest = scores[j] > largest ? scores[j] : largest;
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t j = from; j < to; ++j) {
      scores[j] = exponential(scores[j] - largest);
      sum += scores[j];
    }
    if (largest > state.largest[row]) {
      const T factor = exponential(state.largest[row] - largest);
      T* output = state.output + row * width_;
#pragma omp simd
      for (std::int64_t j = 0; j < width_; ++j) output[j] *= factor;
      state.sum[row] *= factor;
      state.largest[row] = largest;
    }
    state.sum[row] += sum;
  }

  const AttentionStep& op_;
  const KernelArguments& arguments_;
  AttentionSizes sizes_;
  ForwardWorkspace<T> workspace_;
  std::int64_t width_;
};

}  // namespace

std::int64_t workspace_bytes(const AttentionStep& op, OpTypes inputs, OpTypes) {
  const AttentionSizes sizes(op.composite(), inputs[0].shape, inputs[1].shape);
  return dispatch_float(inputs[0].dtype, [&]<class T>(T) { return ForwardWorkspace<T>(nullptr, sizes).bytes; });
}

void run(const AttentionStep& op, const KernelArguments& arguments) {
  dispatch_float(arguments.outputs[0].dtype, [&]<class T>(T) { ForwardKernel<T>(op, arguments).run(); });
}

}  // namespace annulus
