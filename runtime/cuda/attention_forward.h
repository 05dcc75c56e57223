#pragma once

#include "runtime/cuda/attention_tile.h"

namespace annulus {

/// One block a query tile and head: outputs relative to a running maximum (Milakov and Gimelshein, arXiv 1805.02867;
/// Dao, arXiv 2307.08691), normalised at the end.
template <class Shape>
struct AttentionForwardBody {
  using T = typename Shape::Value;
  using Stored = typename Shape::Stored;
  static constexpr std::int64_t kSharedBytes =
      (2 * Shape::kTile * Shape::kWidth + Shape::kTile * Shape::kScoreWidth) * static_cast<std::int64_t>(sizeof(T));

  AttentionPlan plan;
  const Stored *q, *kv;
  EitherWidth<Stored> earlier, out;  ///< of earlier keys
  T* lse;
  bool continues;  ///< earlier and lse hold what earlier keys gave

  /// What a thread knows of its rows.
  struct State {
    T largest[Shape::kRows], sum[Shape::kRows], output[Shape::kRows][Shape::kColumns];
  };
  /// Which tile of which head.
  struct Place {
    std::int64_t sequence, head, first_query;
  };
  struct Shared {
    T *queries, *keys, *scores;  ///< `keys` holds the values, too, one after the other
  };

  std::int64_t blocks() const { return plan.sequences * plan.heads * divide_up(plan.queries, Shape::kTile); }

  template <class Block>
  ANNULUS_BODY void operator()(Block& block) const {
    // Causal tiles with many keys first: the short ones fill the gaps at the end.
    const std::int64_t heads = plan.sequences * plan.heads, tiles = divide_up(plan.queries, Shape::kTile);
    const std::int64_t of_head = block.index() % heads;
    const Place place{of_head / plan.heads, of_head % plan.heads, (tiles - 1 - block.index() / heads) * Shape::kTile};
    T* memory = reinterpret_cast<T*>(block.shared());
    const Shared shared{memory, memory + Shape::kTile * Shape::kWidth, memory + 2 * Shape::kTile * Shape::kWidth};
    load_tile<Shape>(block, q + plan.query_at(place.sequence, place.first_query, place.head), plan.query_stride(),
                     plan.queries - place.first_query, plan.head_dim, plan.packed, static_cast<T>(plan.scale),
                     shared.queries);
    State state;
    begin(block, place, state);
    for (int b = 0; b < plan.block_count; ++b) {
      const AttentionBlock& keys = plan.blocks[b];
      for (std::int64_t key = keys.key_begin / Shape::kTile * Shape::kTile; key < keys.key_end; key += Shape::kTile) {
        if (plan.touches(keys, place.first_query, key, Shape::kTile)) attend(block, keys, place, key, shared, state);
      }
    }
    store(block, place, state);
  }

 private:
  template <class Block>
  ANNULUS_BODY void begin(Block& block, const Place& place, State& state) const {
    ANNULUS_UNROLL
    for (int i = 0; i < Shape::kRows; ++i) {
      const std::int64_t query = place.first_query + block.thread() / kSide + i * kSide;
      const bool known = continues && query < plan.queries;
      const std::int64_t at = known ? plan.query_at(place.sequence, query, place.head) : 0;
      state.largest[i] = known ? lse[at / plan.head_dim] : kUnseen<T>;
      state.sum[i] = state.largest[i] == kUnseen<T> ? T(0) : T(1);
      ANNULUS_UNROLL
      for (int c = 0; c < Shape::kColumns; ++c) {
        const std::int64_t column = block.thread() % kSide + c * kSide;
        state.output[i][c] = known && column < plan.head_dim ? earlier.read(at + column) : T(0);
      }
    }
  }

  /// One tile of keys.
  template <class Block>
  ANNULUS_BODY void attend(Block& block, const AttentionBlock& keys, const Place& place, std::int64_t first_key,
                           const Shared& shared, State& state) const {
    const Stored* key = kv + plan.key_at(place.sequence, first_key, place.head / plan.group());
    block.sync();  // everybody is done with what lies there
    load_tile<Shape>(block, key, plan.kv_stride(), plan.keys - first_key, plan.head_dim, plan.packed, T(1),
                     shared.keys);
    block.sync();
    T scores[Shape::kRows][Shape::kRows];
    score_product<Shape>(block.thread(), shared.queries, shared.keys, plan.head_dim, scores);
    std::int64_t pairs = 0;
    ANNULUS_UNROLL
    for (int i = 0; i < Shape::kRows; ++i) {
      const int row = block.thread() / kSide + i * kSide;
      const std::int64_t query = place.first_query + row;
      T largest = kUnseen<T>;
      ANNULUS_UNROLL
      for (int j = 0; j < Shape::kRows; ++j) {
        const bool seen = plan.sees(keys, query, first_key + block.thread() % kSide + j * kSide);
        scores[i][j] = seen ? scores[i][j] : kUnseen<T>;
        largest = LargerValue()(largest, scores[i][j]);
        pairs += seen ? 1 : 0;
      }
      largest = LargerValue()(state.largest[i], reduce_lanes(block, largest, kSide, LargerValue()));
      const T shift = largest == kUnseen<T> ? T(0) : largest;
      const T factor = exponential(state.largest[i] - shift);
      T sum = 0;
      ANNULUS_UNROLL
      for (int j = 0; j < Shape::kRows; ++j) {
        const int column = block.thread() % kSide + j * kSide;
        T probability = exponential(scores[i][j] - shift);
        sum += probability;
        if (plan.dropout.active())
          probability *= plan.factor<T>(keys, place.sequence, place.head, query, first_key + column);
        shared.scores[row * Shape::kScoreWidth + column] = probability;
      }
      state.sum[i] = state.sum[i] * factor + reduce_lanes(block, sum, kSide, AddValues());
      state.largest[i] = largest;
      ANNULUS_UNROLL
      for (int c = 0; c < Shape::kColumns; ++c) state.output[i][c] *= factor;
    }
    block.count_pairs(pairs);
    block.sync();  // the scores are there, and nobody needs the keys any more
    load_tile<Shape>(block, key + plan.kv_stride() / 2, plan.kv_stride(), plan.keys - first_key, plan.head_dim,
                     plan.packed, T(1), shared.keys);
    block.sync();
    value_product<Shape>(block.thread(), shared.scores, Shape::kScoreWidth, 1, shared.keys, state.output);
  }

  template <class Block>
  ANNULUS_BODY void store(Block& block, const Place& place, const State& state) const {
    ANNULUS_UNROLL
    for (int i = 0; i < Shape::kRows; ++i) {
      const std::int64_t query = place.first_query + block.thread() / kSide + i * kSide;
      if (query >= plan.queries) continue;
      const std::int64_t at = plan.query_at(place.sequence, query, place.head);
      const bool seen = state.sum[i] > 0;
      const T factor = seen ? T(1) / state.sum[i] : T(0);
      ANNULUS_UNROLL
      for (int c = 0; c < Shape::kColumns; ++c) {
        const std::int64_t column = block.thread() % kSide + c * kSide;
        if (column < plan.head_dim) out.write(at + column, state.output[i][c] * factor);
      }
      if (block.thread() % kSide == 0) {
        lse[at / plan.head_dim] = seen ? state.largest[i] + std::log(state.sum[i]) : kUnseen<T>;
      }
    }
  }
};

template <class Launcher>
void launch(const AttentionStep& op, const KernelArguments& arguments, const Launcher& launcher) {
  AttentionPlan plan(op.composite(), op.blocks(), arguments);
  const Tensor &q = arguments.inputs[0], &kv = arguments.inputs[1], &out = arguments.outputs[0];
  const Tensor& earlier = op.first() ? out : arguments.inputs[4];
  dispatch_stored(q.dtype, [&]<class T>(T) {
    plan.packed = plan.head_dim % kPackOf<T> == 0 && aligned<kPackOf<T>>(q.as<T>(), kv.as<T>());
    constexpr int kTile = sizeof(T) == 8 ? 32 : 64;
    with_tile_shape<T, kTile, kTile, kTile>(plan.head_dim, [&]<class Shape>(Shape) {
      const AttentionForwardBody<Shape> body{plan,
                                             q.as<T>(),
                                             kv.as<T>(),
                                             EitherWidth<T>(earlier),
                                             EitherWidth<T>(out),
                                             arguments.outputs[1].as<Wide<T>>(),
                                             !op.first()};
      launcher({body.blocks(), body.kSharedBytes}, body);
    });
  });
}

}  // namespace annulus
