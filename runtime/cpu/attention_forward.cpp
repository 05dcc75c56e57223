#include <atomic>
#include <limits>
#include <numeric>

#include "runtime/cpu/attention_tiles.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/parallel.h"

namespace annulus {
namespace {

/// A query tile in work: its queries in units that make scores powers of 2, and what they have seen so far.
template <class T>
struct QueryState {
  T *queries, *output, *scores, *factors, *minus_reference, *limits, *sums;

  QueryState(WorkspaceCarver& carver, const AttentionSizes& sizes)
      : queries(carver.take<T>(kQueryTile * sizes.head_dim)),
        output(carver.take<T>(kQueryTile * padded_columns<T>(sizes.head_dim))),
        scores(carver.take<T>(kWholePanel * sizes.tile_columns<T>())),
        factors(carver.take<T>(kKeyTile)),
        minus_reference(carver.take<T>(kQueryTile)),
        limits(carver.take<T>(kQueryTile)),
        sums(carver.take<T>(kQueryTile * kSumLanes<T>)) {}
};

/// Keys, transposed, and values of every tile, packed; and one query tile a thread.
template <class T>
struct ForwardWorkspace {
  std::int64_t columns, width, bytes;  ///< of a key tile; of a value
  std::int64_t head_dim, tiles;        ///< tiles of one kv head
  T *keys, *values;
  std::vector<QueryState<T>> states;

  ForwardWorkspace(std::byte* memory, const AttentionSizes& sizes)
      : columns(sizes.tile_columns<T>()),
        width(padded_columns<T>(sizes.head_dim)),
        head_dim(sizes.head_dim),
        tiles(sizes.key_tiles()) {
    WorkspaceCarver carver(memory);
    const std::int64_t all = sizes.sequences * sizes.kv_heads * tiles;
    keys = carver.take<T>(all * columns * head_dim);
    values = carver.take<T>(all * columns * width);
    for (int thread = 0; thread < thread_count(); ++thread) states.emplace_back(carver, sizes);
    bytes = carver.used();
  }
  TileOf<T> keys_of(std::int64_t kv_head, std::int64_t tile) const {
    return {keys + (kv_head * tiles + tile) * columns * head_dim, columns};
  }
  TileOf<T> values_of(std::int64_t kv_head, std::int64_t tile) const {
    return {values + (kv_head * tiles + tile) * columns * width, width};
  }
};

/// Positions whose keys a task packs: a vector of them, which is whole cache lines of the transposed keys.
constexpr std::int64_t kPackedRows = padded_columns<float>(1);
static_assert(kKeyTile % kPackedRows == 0);

template <class T>
class ForwardKernel {
 public:
  ForwardKernel(const AttentionStep& op, const KernelArguments& arguments)
      : op_(op),
        arguments_(arguments),
        sizes_(op.composite(), arguments.inputs[0].shape, arguments.inputs[1].shape),
        workspace_(arguments.workspace, sizes_),
        kernels_(tile_kernels<T>()),
        row_stride_(sizes_.heads * sizes_.head_dim) {
    if (workspace_.bytes > arguments.workspace_bytes) throw InternalError("attention_step: the workspace is too small");
  }

  void run() {
    const std::int64_t panels = tiles_of(sizes_.keys, kPackedRows), heads = sizes_.sequences * sizes_.heads;
    if (!packs_its_own()) {
      parallel_tasks(sizes_.sequences * panels, [&](std::int64_t task, int) {
        pack({task / panels, 0, sizes_.kv_heads}, task % panels * kPackedRows);
      });
    }
    std::atomic<std::int64_t> pairs = 0;
    parallel_tasks(heads * sizes_.query_tiles(), [&](std::int64_t task, int thread) {
      pairs += attend(task % heads, sizes_.query_tiles() - 1 - task / heads,
                      workspace_.states[static_cast<std::size_t>(thread)]);
    });
    arguments_.counters->attended_pairs += pairs;
  }

 private:
  /// Whether keys are read by one task, which then packs them where they stay in its cache.
  bool packs_its_own() const { return sizes_.key_tiles() * sizes_.query_tiles() * sizes_.group() == 1; }

  /// Of one sequence.
  struct KeyHeads {
    std::int64_t sequence, first, count;
  };

  /// The next kPackedRows positions from `first_row` on: all heads of a row lie together.
  void pack(const KeyHeads& heads, std::int64_t first_row) {
    const std::int64_t rows = std::min(kPackedRows, sizes_.keys - first_row), dim = sizes_.head_dim;
    const std::int64_t part = sizes_.kv_heads * dim, tile = first_row / kKeyTile, row = first_row % kKeyTile;
    if (!any_has_keys(op_.blocks(), tile * kKeyTile, (tile + 1) * kKeyTile)) return;
    const std::int64_t padded = first_row + rows == sizes_.keys ? workspace_.columns - row : rows;
    const std::int64_t first_head = heads.sequence * sizes_.kv_heads + heads.first;
    const T* key =
        arguments_.inputs[1].as<T>() + (heads.sequence * sizes_.keys + first_row) * 2 * part + heads.first * dim;
    for (std::int64_t head = 0; head < heads.count; ++head) {
      const TileOf<T> keys = workspace_.keys_of(first_head + head, tile);
      kernels_.transpose(rows, dim, {key + head * dim, 2 * part}, {keys.data + row, keys.row_stride}, padded);
    }
    const TileOf<T> values = workspace_.values_of(first_head, tile);
    const std::int64_t head_stride = workspace_.values_of(first_head + 1, tile).data - values.data;
    for (std::int64_t i = 0; i < rows; ++i) {
      kernels_.scale(heads.count, dim, T(1), {key + i * 2 * part + part, dim},
                     {values.data + (row + i) * values.row_stride, head_stride}, workspace_.width);
    }
  }

  /// One query tile of one head, against all keys that it sees. Returns the pairs visited.
  std::int64_t attend(std::int64_t sequence_head, std::int64_t query_tile, QueryState<T>& state) {
    const std::int64_t sequence = sequence_head / sizes_.heads, head = sequence_head % sizes_.heads;
    const std::int64_t kv_head = sequence * sizes_.kv_heads + head / sizes_.group();
    const AttentionDropout dropout(op_.composite(), arguments_.inputs[2], arguments_.inputs[3],
                                   sequence * sizes_.queries);
    const std::int64_t first = query_tile * kQueryTile;
    if (!op_.first() && !any_has_queries(op_.blocks(), first, first + kQueryTile)) return 0;
    for (std::int64_t row = 0; packs_its_own() && row < sizes_.keys; row += kPackedRows)
      pack({sequence, head / sizes_.group(), 1}, row);
    load(sequence, head, query_tile, state);
    std::int64_t pairs = 0;
    for (const AttentionBlock& block : op_.blocks()) {
      for (std::int64_t tile = block.key_begin / kKeyTile; tile * kKeyTile < block.key_end; ++tile) {
        const std::optional<TileCut> cut = cut_tile(block, query_tile, tile);
        if (!cut) continue;
        attend_tile(*cut, query_tile * kQueryTile, tile, kv_head, dropout, head, state);
        pairs += cut->pairs();
      }
    }
    store(sequence, head, query_tile, state);
    return pairs;
  }

  void load(std::int64_t sequence, std::int64_t head, std::int64_t query_tile, QueryState<T>& state) {
    const std::int64_t first = query_tile * kQueryTile, rows = std::min(kQueryTile, sizes_.queries - first);
    const std::int64_t row = sequence * sizes_.queries + first, at = row * row_stride_ + head * sizes_.head_dim;
    const T unit = static_cast<T>(sizes_.scale() * kLog2E<double>);
    kernels_.scale(rows, sizes_.head_dim, unit, {arguments_.inputs[0].as<T>() + at, row_stride_},
                   {state.queries, sizes_.head_dim}, sizes_.head_dim);
    std::fill_n(state.minus_reference, rows, T(0));
    std::fill_n(state.limits, rows, -std::numeric_limits<T>::infinity());
    std::fill_n(state.sums, rows * kSumLanes<T>, T(0));
    if (op_.first()) {
      std::fill_n(state.output, rows * workspace_.width, T(0));
      return;
    }
    kernels_.scale(rows, sizes_.head_dim, T(1), {arguments_.outputs[0].as<T>() + at, row_stride_},
                   {state.output, workspace_.width}, workspace_.width);
    for (std::int64_t i = 0; i < rows; ++i) {
      const T lse = arguments_.outputs[1].as<T>()[(row + i) * sizes_.heads + head];
      if (lse == -std::numeric_limits<T>::infinity()) continue;
      state.minus_reference[i] = -lse * kLog2E<T>;
      state.limits[i] = kSoftmaxSlack;
      state.sums[i * kSumLanes<T>] = 1;
    }
  }

  void store(std::int64_t sequence, std::int64_t head, std::int64_t query_tile, const QueryState<T>& state) {
    const std::int64_t first = query_tile * kQueryTile, rows = std::min(kQueryTile, sizes_.queries - first);
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t row = sequence * sizes_.queries + first + i;
      const T sum = std::accumulate(state.sums + i * kSumLanes<T>, state.sums + (i + 1) * kSumLanes<T>, T(0));
      const bool seen = state.limits[i] == kSoftmaxSlack;
      kernels_.scale(1, sizes_.head_dim, seen ? 1 / sum : T(0), {state.output + i * workspace_.width, 0},
                     {arguments_.outputs[0].as<T>() + row * row_stride_ + head * sizes_.head_dim, 0}, sizes_.head_dim);
      arguments_.outputs[1].as<T>()[row * sizes_.heads + head] =
          seen ? std::log(sum) - state.minus_reference[i] * kLn2<T> : -std::numeric_limits<T>::infinity();
    }
  }

  void attend_tile(const TileCut& cut, std::int64_t first_query, std::int64_t tile, std::int64_t kv_head,
                   const AttentionDropout& dropout, std::int64_t head, QueryState<T>& state) {
    const TileOf<T> keys = workspace_.keys_of(kv_head, tile), values = workspace_.values_of(kv_head, tile);
    const TileOf<T> scores{state.scores, workspace_.columns};
    const std::int64_t first_key = tile * kKeyTile;
    for (std::int64_t begin = cut.query_begin; begin < cut.query_end;) {
      const std::int64_t end = cut.panel_end(begin), row = begin - first_query;
      const std::int64_t columns = cut.key_limit(end - 1) - first_key;
      const TileOf<T> output{state.output + row * workspace_.width, workspace_.width};
      kernels_.product(end - begin, columns, sizes_.head_dim,
                       {state.queries + row * sizes_.head_dim, sizes_.head_dim, 1}, {keys.data, keys.row_stride},
                       scores, TileUpdate::overwrite, state.minus_reference + row);
      kernels_.soften({end - begin, columns, cut.visible(begin, first_key), scores, state.minus_reference + row,
                       state.limits + row, state.sums + row * kSumLanes<T>, output, workspace_.width});
      if (dropout.active()) drop(cut, begin, end, first_key, head, dropout, state);
      kernels_.product(end - begin, sizes_.head_dim, columns, {scores.data, scores.row_stride, 1},
                       {values.data, values.row_stride}, output, TileUpdate::accumulate, nullptr);
      begin = end;
    }
  }

  void drop(const TileCut& cut, std::int64_t begin, std::int64_t end, std::int64_t first_key, std::int64_t head,
            const AttentionDropout& dropout, QueryState<T>& state) {
    for (std::int64_t query = begin; query < end; ++query) {
      dropout.factors(cut, head, query, state.factors);
      T* of_query = state.scores + (query - begin) * workspace_.columns + cut.key_begin - first_key;
#pragma omp simd
      for (std::int64_t j = 0; j < cut.key_limit(query) - cut.key_begin; ++j) of_query[j] *= state.factors[j];
    }
  }

  const AttentionStep& op_;
  const KernelArguments& arguments_;
  AttentionSizes sizes_;
  ForwardWorkspace<T> workspace_;
  const TileKernels<T>& kernels_;
  std::int64_t row_stride_;  ///< of queries and outputs
};

}  // namespace

std::int64_t workspace_bytes(const AttentionStep& op, OpTypes inputs, OpTypes) {
  const AttentionSizes sizes(op.composite(), inputs[0].shape, inputs[1].shape);
  return dispatch_float(inputs[0].dtype, [&]<class T>(T) { return ForwardWorkspace<T>(nullptr, sizes).bytes; });
}

void run(const AttentionStep& op, const KernelArguments& arguments) {
  if (!op.first()) bring_results(arguments.inputs[4], arguments.outputs[0]);
  dispatch_float(arguments.outputs[0].dtype, [&]<class T>(T) { ForwardKernel<T>(op, arguments).run(); });
}

}  // namespace annulus
