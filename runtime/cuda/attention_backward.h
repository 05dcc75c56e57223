#pragma once

#include "runtime/cuda/attention_tile.h"

namespace annulus {

/// rowsum(dout * out), [rows, heads]: 16 threads a row.
template <class T>
struct AttentionDeltaBody {
  EitherWidth<T> out;
  const T* dout;
  Wide<T>* delta;
  std::int64_t rows, head_dim;  ///< rows of [rows * heads, head_dim]

  template <class Block>
  ANNULUS_BODY void operator()(Block& block) const {
    const std::int64_t row = block.index() * kSide + block.thread() / kSide;
    Wide<T> sum = 0;
    for (std::int64_t j = block.thread() % kSide; row < rows && j < head_dim; j += kSide) {
      sum += out.read(row * head_dim + j) * widened(dout[row * head_dim + j]);
    }
    sum = reduce_lanes(block, sum, kSide, AddValues());
    if (row < rows && block.thread() % kSide == 0) delta[row] = sum;
  }
};

/// What both kernels of the backward share: a tile's probabilities and the gradients of its scores, anew from the final
/// log-sum-exp (Dao, arXiv 2307.08691, algorithm 2). Nothing is summed with atomics: one kernel owns keys, the other
/// queries.
template <class Shape>
struct AttentionBackward {
  using T = typename Shape::Value;
  using Stored = typename Shape::Stored;
  static constexpr std::int64_t kSharedBytes =
      (4 * Shape::kTile * Shape::kWidth + 2 * Shape::kTile * Shape::kScoreWidth) * static_cast<std::int64_t>(sizeof(T));

  AttentionPlan plan;
  const Stored *q, *kv, *dout;
  const T *lse, *delta;

  struct Place {
    std::int64_t sequence, head, first_query, first_key;
  };
  struct Shared {
    T *queries, *output_grad, *keys, *values, *probabilities, *slopes;
    ANNULUS_BODY explicit Shared(std::byte* memory)
        : queries(reinterpret_cast<T*>(memory)),
          output_grad(queries + Shape::kTile * Shape::kWidth),
          keys(output_grad + Shape::kTile * Shape::kWidth),
          values(keys + Shape::kTile * Shape::kWidth),
          probabilities(values + Shape::kTile * Shape::kWidth),
          slopes(probabilities + Shape::kTile * Shape::kScoreWidth) {}
  };

  template <class Block>
  ANNULUS_BODY void load_queries(Block& block, const Place& place, const Shared& shared) const {
    const std::int64_t at = plan.query_at(place.sequence, place.first_query, place.head);
    const std::int64_t count = plan.queries - place.first_query;
    load_tile<Shape>(block, q + at, plan.query_stride(), count, plan.head_dim, plan.packed, static_cast<T>(plan.scale),
                     shared.queries);
    load_tile<Shape>(block, dout + at, plan.query_stride(), count, plan.head_dim, plan.packed, T(1),
                     shared.output_grad);
  }
  template <class Block>
  ANNULUS_BODY void load_keys(Block& block, const Place& place, const Shared& shared) const {
    const Stored* key = kv + plan.key_at(place.sequence, place.first_key, place.head / plan.group());
    const std::int64_t count = plan.keys - place.first_key;
    load_tile<Shape>(block, key, plan.kv_stride(), count, plan.head_dim, plan.packed, T(1), shared.keys);
    load_tile<Shape>(block, key + plan.kv_stride() / 2, plan.kv_stride(), count, plan.head_dim, plan.packed, T(1),
                     shared.values);
  }

  /// `probabilities` (dropped ones 0) and `slopes`, the gradient of the scores. Returns the thread's share of pairs.
  template <class Block>
  ANNULUS_BODY std::int64_t differentiate(Block& block, const AttentionBlock& of, const Place& place,
                                          const Shared& shared) const {
    T scores[Shape::kRows][Shape::kRows], slopes[Shape::kRows][Shape::kRows];
    score_product<Shape>(block.thread(), shared.queries, shared.keys, plan.head_dim, scores);
    score_product<Shape>(block.thread(), shared.output_grad, shared.values, plan.head_dim, slopes);
    std::int64_t pairs = 0;
    ANNULUS_UNROLL
    for (int i = 0; i < Shape::kRows; ++i) {
      const int row = block.thread() / kSide + i * kSide;
      const std::int64_t query = place.first_query + row;
      const bool exists = query < plan.queries;
      const std::int64_t at = exists ? (place.sequence * plan.queries + query) * plan.heads + place.head : 0;
      const T of_lse = lse[at], of_delta = delta[at];
      ANNULUS_UNROLL
      for (int j = 0; j < Shape::kRows; ++j) {
        const int column = block.thread() % kSide + j * kSide;
        const std::int64_t key = place.first_key + column;
        T probability = 0, slope = 0;
        if (plan.sees(of, query, key)) {
          const T factor = plan.dropout.active() ? plan.factor<T>(of, place.sequence, place.head, query, key) : T(1);
          probability = exponential(scores[i][j] - of_lse);
          slope = probability * (slopes[i][j] * factor - of_delta);
          probability *= factor;
          ++pairs;
        }
        shared.probabilities[row * Shape::kScoreWidth + column] = probability;
        shared.slopes[row * Shape::kScoreWidth + column] = slope;
      }
    }
    return pairs;
  }

  /// `write(row, column, sum)` for all sums of the first `count` rows.
  template <class Write>
  ANNULUS_BODY void store(int thread, const T (&sum)[Shape::kRows][Shape::kColumns], std::int64_t count,
                          const Write& write) const {
    ANNULUS_UNROLL
    for (int i = 0; i < Shape::kRows; ++i) {
      const std::int64_t row = thread / kSide + i * kSide;
      ANNULUS_UNROLL
      for (int c = 0; c < Shape::kColumns; ++c) {
        const std::int64_t column = thread % kSide + c * kSide;
        if (row < count && column < plan.head_dim) write(row, column, sum[i][c]);
      }
    }
  }
};

/// One block a key tile and kv head, over all query heads that read it: dkv.
template <class Shape>
struct AttentionKeyGradBody {
  using T = typename Shape::Value;
  AttentionBackward<Shape> shared_part;
  EitherWidth<typename Shape::Stored> dkv;

  std::int64_t blocks() const {
    const AttentionPlan& plan = shared_part.plan;
    return plan.sequences * plan.kv_heads * divide_up(plan.keys, Shape::kTile);
  }

  template <class Block>
  ANNULUS_BODY void operator()(Block& block) const {
    const AttentionPlan& plan = shared_part.plan;
    const std::int64_t heads = plan.sequences * plan.kv_heads, of_head = block.index() % heads;
    const std::int64_t sequence = of_head / plan.kv_heads, kv_head = of_head % plan.kv_heads;
    typename AttentionBackward<Shape>::Place place{sequence, kv_head * plan.group(), 0,
                                                   block.index() / heads * Shape::kTile};
    const typename AttentionBackward<Shape>::Shared shared(block.shared());
    T key_grad[Shape::kRows][Shape::kColumns], value_grad[Shape::kRows][Shape::kColumns];
    clear_sums<Shape>(key_grad);
    clear_sums<Shape>(value_grad);
    shared_part.load_keys(block, place, shared);
    for (std::int64_t member = 0; member < plan.group(); ++member) {
      place.head = kv_head * plan.group() + member;
      for (int b = 0; b < plan.block_count; ++b) {
        const AttentionBlock& of = plan.blocks[b];
        place.first_query = of.query_begin / Shape::kTile * Shape::kTile;
        for (; place.first_query < of.query_end; place.first_query += Shape::kTile) {
          if (!plan.touches(of, place.first_query, place.first_key, Shape::kTile)) continue;
          block.sync();  // everybody is done with the last queries and scores
          shared_part.load_queries(block, place, shared);
          block.sync();
          block.count_pairs(shared_part.differentiate(block, of, place, shared));
          block.sync();
          value_product<Shape>(block.thread(), shared.probabilities, 1, Shape::kScoreWidth, shared.output_grad,
                               value_grad);
          value_product<Shape>(block.thread(), shared.slopes, 1, Shape::kScoreWidth, shared.queries, key_grad);
        }
      }
    }
    const std::int64_t to = plan.key_at(sequence, place.first_key, kv_head), count = plan.keys - place.first_key;
    const std::int64_t stride = plan.kv_stride();
    shared_part.store(block.thread(), key_grad, count, [&](std::int64_t row, std::int64_t column, T sum) {
      dkv.write(to + row * stride + column, sum);
    });
    shared_part.store(block.thread(), value_grad, count, [&](std::int64_t row, std::int64_t column, T sum) {
      dkv.write(to + stride / 2 + row * stride + column, sum);
    });
  }
};

/// One block a query tile and head: dq.
template <class Shape>
struct AttentionQueryGradBody {
  using T = typename Shape::Value;
  AttentionBackward<Shape> shared_part;
  EitherWidth<typename Shape::Stored> earlier, dq;
  bool continues;  ///< `earlier`, of earlier keys, is added to

  std::int64_t blocks() const {
    const AttentionPlan& plan = shared_part.plan;
    return plan.sequences * plan.heads * divide_up(plan.queries, Shape::kTile);
  }

  template <class Block>
  ANNULUS_BODY void operator()(Block& block) const {
    const AttentionPlan& plan = shared_part.plan;
    const std::int64_t heads = plan.sequences * plan.heads, tiles = divide_up(plan.queries, Shape::kTile);
    const std::int64_t of_head = block.index() % heads;
    typename AttentionBackward<Shape>::Place place{of_head / plan.heads, of_head % plan.heads,
                                                   (tiles - 1 - block.index() / heads) * Shape::kTile, 0};
    const typename AttentionBackward<Shape>::Shared shared(block.shared());
    T query_grad[Shape::kRows][Shape::kColumns];
    clear_sums<Shape>(query_grad);
    shared_part.load_queries(block, place, shared);
    for (int b = 0; b < plan.block_count; ++b) {
      const AttentionBlock& of = plan.blocks[b];
      place.first_key = of.key_begin / Shape::kTile * Shape::kTile;
      for (; place.first_key < of.key_end; place.first_key += Shape::kTile) {
        if (!plan.touches(of, place.first_query, place.first_key, Shape::kTile)) continue;
        block.sync();
        shared_part.load_keys(block, place, shared);
        block.sync();
        shared_part.differentiate(block, of, place, shared);
        block.sync();
        value_product<Shape>(block.thread(), shared.slopes, Shape::kScoreWidth, 1, shared.keys, query_grad);
      }
    }
    const std::int64_t to = plan.query_at(place.sequence, place.first_query, place.head);
    shared_part.store(block.thread(), query_grad, plan.queries - place.first_query,
                      [&](std::int64_t row, std::int64_t column, T sum) {
                        const std::int64_t at = to + row * plan.query_stride() + column;
                        dq.write(at, sum * static_cast<T>(plan.scale) + (continues ? earlier.read(at) : T(0)));
                      });
  }
};

inline std::int64_t device_workspace_bytes(const AttentionStepGrad& op, OpDefinition::Types inputs,
                                           OpDefinition::Types) {
  return inputs[0].shape.elements() / op.composite().shape().head_dim * size_of(inputs[5].dtype);
}

template <class Launcher>
void launch(const AttentionStepGrad& op, const KernelArguments& arguments, const Launcher& launcher) {
  AttentionPlan plan(op.composite(), op.blocks(), arguments);
  const auto inputs = arguments.inputs;
  const Tensor& dq = arguments.outputs[0];
  dispatch_stored(inputs[0].dtype, [&]<class T>(T) {
    using W = Wide<T>;
    const T *q = inputs[0].as<T>(), *kv = inputs[1].as<T>(), *dout = inputs[6].as<T>();
    plan.packed = plan.head_dim % kPackOf<T> == 0 && aligned<kPackOf<T>>(q, kv, dout);
    W* delta = reinterpret_cast<W*>(arguments.workspace);
    const std::int64_t rows = dq.elements() / plan.head_dim;
    launcher({divide_up(rows, kSide)},
             AttentionDeltaBody<T>{EitherWidth<T>(inputs[4]), dout, delta, rows, plan.head_dim});
    constexpr int kTile = sizeof(T) == 8 ? 32 : 64;
    with_tile_shape<T, kTile, 32, kTile / 2>(plan.head_dim, [&]<class Shape>(Shape) {
      const AttentionBackward<Shape> part{plan, q, kv, dout, inputs[5].as<W>(), delta};
      const AttentionKeyGradBody<Shape> of_keys{part, EitherWidth<T>(arguments.outputs[1])};
      launcher({of_keys.blocks(), part.kSharedBytes}, of_keys);
      const AttentionQueryGradBody<Shape> of_queries{part, EitherWidth<T>(op.first() ? dq : inputs[7]),
                                                     EitherWidth<T>(dq), !op.first()};
      launcher({of_queries.blocks(), part.kSharedBytes}, of_queries);
    });
  });
}

}  // namespace annulus
