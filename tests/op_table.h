#pragma once

#include <array>
#include <functional>
#include <string>
#include <vector>

#include "runtime/ops/op_table.h"
#include "tests/op_operands.h"

namespace annulus::testing {

/// A row of the table: `cases` draws operands in every form that the kind has.
struct OpTable : OpOperands {
  std::vector<OpCase> cases(const Matmul*) {
    const std::int64_t m = draw.size(20), k = draw.size(20), n = draw.size(20), parts = draw.size(3);
    using Form = Matmul::Form;
    using Epilogue = ProductEpilogue;
    constexpr auto kBias = Epilogue::Bias::of_columns;
    using Addend = Epilogue::Addend;
    using Finish = Epilogue::Finish;
    return {{"nn", {numbers({m, k}), numbers({k, n})}, plain<Matmul>(Form::nn)},
            {"nn, parts", {numbers({m, k}), numbers({k, parts, n})}, plain<Matmul>(Form::nn)},
            {"nt", {numbers({m, k}), numbers({n, k})}, plain<Matmul>(Form::nt)},
            {"nt, parts", {numbers({m, parts, k}), numbers({n, parts, k})}, plain<Matmul>(Form::nt)},
            {"tn", {numbers({k, m}), numbers({k, n})}, plain<Matmul>(Form::tn)},
            {"tn, parts", {numbers({k, m}), numbers({k, parts, n})}, plain<Matmul>(Form::tn)},
            {"nn, parts + bias",
             {numbers({m, k}), numbers({k, parts, n}), numbers({parts, n})},
             plain<Matmul>(Form::nn, Epilogue{.bias = kBias})},
            {"nn + bias + addend",
             {numbers({m, k}), numbers({k, n}), numbers({n}), numbers({m, n})},
             plain<Matmul>(Form::nn, Epilogue{.bias = kBias, .addend = Addend::operand})},
            {"nn + bias, in place",
             {numbers({m, k}), numbers({k, n}), numbers({n}), numbers({m, n})},
             plain<Matmul>(Form::nn, Epilogue{.bias = kBias, .addend = Addend::in_place})},
            {"nt + addend",
             {numbers({m, k}), numbers({n, k}), numbers({m, n})},
             plain<Matmul>(Form::nt, Epilogue{.addend = Addend::operand})},
            {"tn, parts, in place",
             {numbers({k, m}), numbers({k, parts, n}), numbers({m, parts, n})},
             plain<Matmul>(Form::tn, Epilogue{.addend = Addend::in_place})},
            {"nn + bias, gelu",
             {numbers({m, k}), numbers({k, n}), numbers({n})},
             plain<Matmul>(Form::nn, Epilogue{.bias = kBias, .finish = Finish::gelu})},
            {"nn, parts + bias, gelu and input",
             {numbers({m, k}), numbers({k, parts, n}), numbers({parts, n})},
             plain<Matmul>(Form::nn, Epilogue{.bias = kBias, .finish = Finish::gelu_and_input})},
            {"nt, gelu and input",
             {numbers({m, k}), numbers({n, k})},
             plain<Matmul>(Form::nt, Epilogue{.finish = Finish::gelu_and_input, .activation = Activation::gelu_erf})},
            {"nt, gelu slope",
             {constant({m, k}), constant({n, k}), constant({m, n})},
             plain<Matmul>(Form::nt, Epilogue{.finish = Finish::gelu_slope})},
            {"nn + bias, gelu slope",
             {constant({m, k}), constant({k, n}), constant({n}), constant({m, n})},
             plain<Matmul>(Form::nn,
                           Epilogue{.bias = kBias, .finish = Finish::gelu_slope, .activation = Activation::gelu_erf})},
            {"tn, wide",
             {numbers({k, m}), numbers({k, n})},
             plain<Matmul>(Form::tn, Epilogue{.output = ProductEpilogue::Output::wide})},
            {"tn, wide, in place",
             {numbers({k, m}), numbers({k, n}), wide_numbers({m, n})},
             plain<Matmul>(Form::tn, Epilogue{.addend = Addend::in_place, .output = ProductEpilogue::Output::wide})}};
  }
  std::vector<OpCase> cases(const Add*) {
    const Shape shape{draw.size(20), draw.size(20)}, deep{draw.size(4), draw.size(4), draw.size(4)};
    return {{"matrix", {numbers(shape), numbers(shape)}, plain<Add>()},
            {"3 dims", {numbers(deep), numbers(deep)}, plain<Add>()}};
  }
  std::vector<OpCase> cases(const AddBias*) {
    const std::int64_t rows = draw.size(20), columns = draw.size(20), parts = draw.size(3);
    return {{"vector", {numbers({rows, columns}), numbers({columns})}, plain<AddBias>()},
            {"parts", {numbers({rows, parts, columns}), numbers({parts, columns})}, plain<AddBias>()}};
  }
  std::vector<OpCase> cases(const ColumnSum*) {
    return {{"matrix", {constant({draw.size(20), draw.size(20)})}, plain<ColumnSum>()},
            {"parts", {constant({draw.size(9), draw.size(3), draw.size(9)})}, plain<ColumnSum>()}};
  }
  std::vector<OpCase> cases(const Gelu*) {
    const Shape shape{draw.size(20), draw.size(20)};
    return {{"tanh", {numbers(shape)}, plain<Gelu>(Activation::gelu_tanh)},
            {"erf", {numbers(shape)}, plain<Gelu>(Activation::gelu_erf)}};
  }
  std::vector<OpCase> cases(const GeluGrad*) {
    const Shape shape{draw.size(20), draw.size(20)};
    return {{"tanh", {constant(shape), constant(shape)}, plain<GeluGrad>(Activation::gelu_tanh)},
            {"erf", {constant(shape), constant(shape)}, plain<GeluGrad>(Activation::gelu_erf)}};
  }
  std::vector<OpCase> cases(const LayerNorm*) {
    const std::int64_t rows = draw.size(20), columns = draw.size(20);
    return {{"", {numbers({rows, columns}), numbers({columns}, 1), numbers({columns})}, plain<LayerNorm>(0.05)}};
  }
  std::vector<OpCase> cases(const LayerNormGrad*) {
    const std::int64_t rows = draw.size(20), columns = draw.size(20);
    const std::vector<OpInput> inputs{constant({rows, columns}), constant({columns}),
                                      between({rows, 2}, 0.5, 2, wide(dtype)), constant({rows, columns})};
    const std::vector<OpInput> more = joined(inputs, {constant({rows, columns})});
    using Addend = LayerNormGrad::Addend;
    return {{"", inputs, plain<LayerNormGrad>()},
            {"addend", more, plain<LayerNormGrad>(Addend::operand)},
            {"in place", more, plain<LayerNormGrad>(Addend::in_place)}};
  }
  std::vector<OpCase> cases(const ResidualNorm*) {
    const std::int64_t rows = draw.size(20), columns = draw.size(20);
    const OpInput x = constant({rows, columns}), vector = constant({columns});
    const OpInput row_ids = ids({rows, 2}, 50), of_step = step();
    using Bias = ResidualNorm::Bias;
    const LayerNorm norm(0.05);
    const Dropout dropout(mask(0.3), 0);
    return {{"", {x, x, vector, vector}, plain<ResidualNorm>(norm, Bias::none, std::nullopt)},
            {"bias", {x, x, vector, vector, vector}, plain<ResidualNorm>(norm, Bias::of_columns, std::nullopt)},
            {"dropout", {x, x, vector, vector, row_ids, of_step}, plain<ResidualNorm>(norm, Bias::none, dropout)},
            {"bias, dropout",
             {x, x, vector, vector, vector, row_ids, of_step},
             plain<ResidualNorm>(norm, Bias::of_columns, dropout)}};
  }
  std::vector<OpCase> cases(const Embed*) {
    const std::int64_t rows = draw.size(20), vocabulary = draw.size(20), columns = draw.size(20);
    return {{"", {ids({rows}, vocabulary - 1), numbers({vocabulary, columns})}, [](const MeshAxes& mesh, auto types) {
               return std::make_shared<Embed>(shard_offset(mesh, types[1], 0));
             }}};
  }
  std::vector<OpCase> cases(const EmbedGrad*) {
    const std::int64_t rows = draw.size(20), vocabulary = draw.size(20), columns = draw.size(20);
    const std::vector<OpInput> inputs{ids({rows}, vocabulary - 1), constant({vocabulary, columns}),
                                      constant({rows, columns})};
    const auto make = [](EmbedGrad::Target target) {
      return [target](const MeshAxes& mesh, OpDefinition::Types types) -> OpPointer {
        return std::make_shared<EmbedGrad>(shard_offset(mesh, types[1], 0), target);
      };
    };
    return {{"", inputs, make(EmbedGrad::Target::fresh)},
            {"in place", joined(inputs, {wide_constant({vocabulary, columns})}), make(EmbedGrad::Target::in_place)}};
  }
  std::vector<OpCase> cases(const Dropout*) {
    const std::int64_t rows = draw.size(20);
    return {{"",
             {numbers({rows, draw.size(20)}), ids({rows, 2}, 50), step()},
             [dropped = mask(0.3)](const MeshAxes& mesh, auto types) {
               return std::make_shared<Dropout>(dropped, shard_offset(mesh, types[0], 1));
             }}};
  }

  /// Logits of a vocabulary whose last columns are padding, and ops on them that know which columns they have.
  template <class Kind>
  static auto on_shard(std::int64_t vocabulary) {
    return [vocabulary](const MeshAxes& mesh, OpDefinition::Types types) -> OpPointer {
      return std::make_shared<Kind>(VocabularyShard{shard_offset(mesh, types[0], 1), vocabulary});
    };
  }
  struct Logits {
    std::int64_t rows, columns, vocabulary;
  };
  Logits logits() {
    const std::int64_t columns = draw.size(20);
    return {draw.size(20), columns, draw.between(1, columns)};
  }
  std::vector<OpCase> cases(const RowMax*) {
    const Logits l = logits();
    return {{"", {constant({l.rows, l.columns})}, on_shard<RowMax>(l.vocabulary)}};
  }
  std::vector<OpCase> cases(const RowSumExp*) {
    const Logits l = logits();
    return {{"", {constant({l.rows, l.columns}), wide_constant({l.rows})}, on_shard<RowSumExp>(l.vocabulary)}};
  }
  std::vector<OpCase> cases(const RowTarget*) {
    const Logits l = logits();
    return {{"", {constant({l.rows, l.columns}), ids({l.rows}, l.vocabulary - 1)}, on_shard<RowTarget>(l.vocabulary)}};
  }
  std::vector<OpCase> cases(const RowSoftmax*) {
    const Logits l = logits();
    return {{"", {constant({l.rows, l.columns}), ids({l.rows}, l.vocabulary - 1)}, on_shard<RowSoftmax>(l.vocabulary)}};
  }
  std::vector<OpCase> cases(const Nll*) {
    const Logits l = logits();
    const std::vector<OpInput> inputs{constant({l.rows, l.columns}),   between({l.rows}, 1, 9, wide(dtype)),
                                      wide_constant({l.rows}),         wide_constant({l.rows}),
                                      ids({l.rows}, l.vocabulary - 1), between({l.rows}, 0, 1, wide(dtype))};
    const auto separate = [l](const MeshAxes& mesh, OpDefinition::Types types) -> OpPointer {
      const VocabularyShard shard{shard_offset(mesh, types[0], 1), l.vocabulary};
      return std::make_shared<Nll>(shard, Nll::GradientWeights::separate);
    };
    return {{"", inputs, on_shard<Nll>(l.vocabulary)},
            {"gradient weights", joined(inputs, {between({l.rows}, 0, 1, wide(dtype))}), separate}};
  }
  std::vector<OpCase> cases(const NllGrad*) {
    const Logits l = logits();
    return {{"",
             {constant({l.rows, l.columns}), between({l.rows}, 1, 9, wide(dtype)), wide_constant({l.rows}),
              ids({l.rows}, l.vocabulary - 1), between({l.rows}, 0, 1, wide(dtype))},
             on_shard<NllGrad>(l.vocabulary)}};
  }

  /// Attention of `groups` kv heads, each read by `share` query heads, on sequences of n positions.
  struct Heads {
    std::int64_t sequences, n, groups, share, head_dim;
    double rate;

    std::int64_t rows() const { return sequences * n; }
    Shape q() const { return {rows(), groups * share * head_dim}; }
    Shape kv() const { return {rows(), 2, groups * head_dim}; }
    Shape lse() const { return {rows(), groups * share}; }
  };
  std::vector<Heads> heads() {
    const auto drawn = [&](std::int64_t groups, std::int64_t share, double rate) {
      return Heads{draw.size(3), draw.size(9), groups, share, draw.between(1, 9), rate};
    };
    return {drawn(draw.size(3), draw.size(3), 0.2), drawn(1, draw.size(4), 0), drawn(draw.size(3), 1, 0),
            drawn(draw.size(3), 1, 0.3)};
  }
  /// q, kv, row_ids, step.
  std::vector<OpInput> attended(const Heads& h) {
    OpInput rows = ids({h.rows(), 2}, 50);
    for (std::int64_t row = 0; row < h.rows(); ++row) {
      rows.values[static_cast<std::size_t>(2 * row)] = static_cast<double>(row / h.n + 3);
      rows.values[static_cast<std::size_t>(2 * row + 1)] = static_cast<double>(row % h.n);
    }
    return {numbers(h.q()), numbers(h.kv()), rows, step()};
  }
  static std::vector<OpInput> joined(std::vector<OpInput> inputs, const std::vector<OpInput>& more) {
    inputs.insert(inputs.end(), more.begin(), more.end());
    return inputs;
  }
  /// The composite for local operands: as many sequences as the batch axes leave it, heads from where q's begin.
  std::function<Attention(const MeshAxes&, OpDefinition::Types)> composite(const Heads& h) {
    return [h, axes = attention_axes, dropped = mask(h.rate)](const MeshAxes& mesh, OpDefinition::Types types) {
      const std::int64_t replicas = mesh.size(sharded_axes(mesh, types[0], 0) & axes.batch);
      return Attention({h.head_dim, h.sequences / replicas}, axes, dropped,
                       shard_offset(mesh, types[0], 1) / h.head_dim);
    };
  }
  /// Causal attention of n positions on themselves, as two blocks where there are two queries.
  static std::vector<AttentionBlock> causal(std::int64_t n) {
    const auto all = static_cast<std::int32_t>(n), half = static_cast<std::int32_t>(n / 2);
    AttentionBlock upper{.query_end = half, .key_end = half, .causal = true};
    AttentionBlock lower{.query_begin = half, .query_end = all, .key_end = all, .causal = true, .diagonal = half};
    lower.query_position = half;
    if (half == 0) return {lower};
    return {upper, lower};
  }
  template <class Kind>
  auto ring_step(const Heads& h, bool first, StepResult result = StepResult::running) {
    return [=, n = h.n, make = composite(h)](const MeshAxes& mesh, OpDefinition::Types types) -> OpPointer {
      return std::make_shared<Kind>(make(mesh, types), causal(n), first, result);
    };
  }
  std::vector<OpCase> cases(const AttentionStep*) {
    std::vector<OpCase> all;
    for (const Heads& h : heads()) {
      const std::vector<OpInput> inputs = attended(h);
      all.push_back({"first", inputs, ring_step<AttentionStep>(h, true), h.sequences});
      const std::vector<OpInput> later = joined(inputs, {wide_constant(h.q()), wide_constant(h.lse())});
      all.push_back({"next", later, ring_step<AttentionStep>(h, false), h.sequences});
      if (!is_half(dtype)) continue;  // for others this is all the same
      all.push_back({"only", inputs, ring_step<AttentionStep>(h, true, StepResult::rounded), h.sequences});
      all.push_back({"last", later, ring_step<AttentionStep>(h, false, StepResult::rounded), h.sequences});
    }
    return all;
  }
  std::vector<OpCase> cases(const AttentionStepGrad*) {
    std::vector<OpCase> all;
    for (const Heads& h : heads()) {
      const std::vector<OpInput> inputs =
          joined(attended(h), {constant(h.q()), between(h.lse(), 1, 4, wide(dtype)), constant(h.q())});
      all.push_back({"first", inputs, ring_step<AttentionStepGrad>(h, true), h.sequences});
      if (all.size() > 1) continue;  // of the longest list of inputs one case is enough
      const std::vector<OpInput> later = joined(inputs, {wide_constant(h.q())});
      all.push_back({"next", later, ring_step<AttentionStepGrad>(h, false), h.sequences});
      if (!is_half(dtype)) continue;
      all.push_back({"only", inputs, ring_step<AttentionStepGrad>(h, true, StepResult::rounded), h.sequences});
      all.push_back({"last", later, ring_step<AttentionStepGrad>(h, false, StepResult::rounded), h.sequences});
    }
    return all;
  }
  std::vector<OpCase> cases(const Attention*) {
    std::vector<OpCase> all;
    for (const Heads& h : heads())
      all.push_back({"", attended(h),
                     [make = composite(h)](const MeshAxes& mesh, OpDefinition::Types types) -> OpPointer {
                       return std::make_shared<Attention>(make(mesh, types));
                     },
                     h.sequences});
    return all;
  }
  std::vector<OpCase> cases(const AttentionGrad*) {
    std::vector<OpCase> all;
    for (const Heads& h : heads())
      all.push_back({"", joined(attended(h), {constant(h.q()), between(h.lse(), 1, 4, wide(dtype)), constant(h.q())}),
                     [make = composite(h)](const MeshAxes& mesh, OpDefinition::Types types) -> OpPointer {
                       return std::make_shared<AttentionGrad>(make(mesh, types));
                     },
                     h.sequences});
    return all;
  }

  std::vector<OpCase> cases(const SumSquares*) {
    const Shape shape{draw.size(20), draw.size(20)};
    return {{"", {wide_constant(shape)}, plain<SumSquares>()},
            {"list",
             {wide_constant({draw.size(99)}), wide_constant(shape), wide_constant({draw.size(9)})},
             plain<SumSquares>()}};
  }
  std::vector<OpCase> cases(const Accumulate*) {
    const Shape shape{draw.size(20), draw.size(20)};
    return {{"", {wide_constant(shape), wide_constant(shape)}, plain<Accumulate>()}};
  }
  std::vector<OpCase> cases(const Cast*) {
    const Shape shape{draw.size(20), draw.size(20)};
    return {{"to its own type", {numbers(shape)}, plain<Cast>(dtype)},
            {"wide", {numbers(shape)}, plain<Cast>(wide(dtype))}};
  }
  std::vector<OpCase> cases(const Zero*) {
    return {{"in place", {constant({draw.size(20), draw.size(20)})}, plain<Zero>()},
            {"fresh", {constant({draw.size(20), draw.size(20)})}, plain<Zero>(AxisSet())}};
  }
  /// Of one part here; over axes it is tried with the collectives.
  std::vector<OpCase> cases(const Slice*) {
    const Shape shape{draw.size(20), draw.size(20)};
    return {{"one part", {constant(shape)}, plain<Slice>(AxisSet(), 0, 0, 1)}};
  }
  std::vector<OpCase> cases(const Clip*) {
    const std::vector<OpInput> sums{between({1}, 1, 9, DType::f64), between({2}, 1, 9, DType::f64)};
    return {{"", sums, plain<Clip>(0.5)},
            {"loss scaling", joined(sums, {between({1}, 1, 9, DType::f64)}), plain<Clip>(0.5, Clip::LossScaling::on)}};
  }
  /// Weights, gradients, first and second moments, clip, hyper.
  std::vector<OpInput> updated(const std::vector<Shape>& shapes) {
    std::vector<OpInput> inputs;
    for (int list = 0; list < 4; ++list)
      for (const Shape& shape : shapes)
        inputs.push_back(list < 3 ? wide_constant(shape) : between(shape, 0, 1, wide(dtype)));
    for (int sums = 0; sums < 2; ++sums) inputs.push_back(between({4}, 0.1, 1, DType::f64));
    return inputs;
  }
  std::vector<OpCase> cases(const AdamW*) {
    const Shape shape{draw.size(20), draw.size(20)}, vector{draw.size(99)}, other{draw.size(9)};
    const std::vector<OpInput> inputs = updated({shape}), list = updated({vector, other});
    std::vector<OpInput> skipped = inputs;
    skipped[4].values[0] = 0;
    const AdamW::Options options;
    using Copy = AdamW::WorkingCopy;
    std::vector<OpCase> all{{"", inputs, plain<AdamW>(options)},
                            {"skipped", skipped, plain<AdamW>(options)},
                            {"list", list, plain<AdamW>(options, Copy::none, 2)}};
    if (!is_half(dtype)) return all;
    all.push_back({"working copy", joined(inputs, {constant(shape)}), plain<AdamW>(options, Copy::rounded)});
    const std::vector<OpInput> copies{constant(vector), constant(other)};
    all.push_back({"list, working copies", joined(list, copies), plain<AdamW>(options, Copy::rounded, 2)});
    return all;
  }
};

#define ANNULUS_KIND(enumerator, type) OpKind::enumerator,
inline constexpr std::array kComputeKinds = {ANNULUS_COMPUTE_KINDS(ANNULUS_KIND)};
inline constexpr std::array kComputeAndCompositeKinds = {ANNULUS_COMPUTE_KINDS(ANNULUS_KIND)
                                                             ANNULUS_COMPOSITE_KINDS(ANNULUS_KIND)};
#undef ANNULUS_KIND

/// Cases of a kind; a kind without a row does not compile.
inline std::vector<OpCase> cases_of(OpKind kind, OpTable table) {
  switch (kind) {
#define ANNULUS_KIND(enumerator, type) \
  case OpKind::enumerator:             \
    return table.cases(static_cast<const type*>(nullptr));
    ANNULUS_COMPUTE_KINDS(ANNULUS_KIND)
    ANNULUS_COMPOSITE_KINDS(ANNULUS_KIND)
#undef ANNULUS_KIND
    default:
      return {};  // collectives change placements alone: tests/parallel/collective_placement_test.cpp
  }
}

}  // namespace annulus::testing
