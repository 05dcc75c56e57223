#include "runtime/execute/calibration_cases.h"

#include <algorithm>

#include "runtime/ops/op_table.h"

namespace annulus {
namespace {

constexpr std::int64_t kColumns = 512;

template <class Kind, class... Arguments>
OpCase made(std::vector<ValueType> inputs, Arguments&&... arguments) {
  return {std::make_shared<Kind>(std::forward<Arguments>(arguments)...), std::move(inputs)};
}

ValueType matrix_of(DType dtype, std::int64_t elements) {
  return {dtype, {std::max<std::int64_t>(1, elements / kColumns), kColumns}};
}

/// Passes over matrices [rows, kColumns].
void add_matrix_passes(DType dtype, std::int64_t elements, std::vector<OpCase>& cases) {
  const auto matrix = [&](std::int64_t operands) { return matrix_of(dtype, elements / operands); };
  const auto per_row = [&](const ValueType& x, std::int64_t columns) {
    return ValueType{dtype, {x.shape[0], columns}};
  };
  const auto row_ids = [](const ValueType& x) { return ValueType{DType::i32, {x.shape[0], 2}}; };
  const ValueType vector{dtype, {kColumns}}, one = matrix(1), two = matrix(2), three = matrix(3), four = matrix(4);
  cases.push_back(made<Add>({three, three}));
  cases.push_back(made<AddBias>({two, vector}));
  cases.push_back(made<ColumnSum>({one}));
  cases.push_back(made<Gelu>({two}, Activation::gelu_tanh));
  cases.push_back(made<GeluGrad>({three, three}, Activation::gelu_tanh));
  cases.push_back(made<LayerNorm>({two, vector, vector}, 1e-5));
  cases.push_back(made<LayerNormGrad>({three, vector, per_row(three, 2), three}));
  cases.push_back(
      made<ResidualNorm>({four, four, vector, vector}, LayerNorm(1e-5), ResidualNorm::Bias::none, std::nullopt));
  cases.push_back(made<Dropout>({two, row_ids(two), {DType::i32, {1}}}, DropoutMask{0.1, 1, 2}, 0));
  cases.push_back(made<Accumulate>({three, three}));
}

/// Passes over a vocabulary's rows or columns.
void add_vocabulary_passes(DType dtype, std::int64_t elements, std::vector<OpCase>& cases) {
  const VocabularyShard shard{0, kCaseVocabulary};
  const auto logits = [&](std::int64_t operands) {
    return ValueType{dtype, {std::max<std::int64_t>(1, elements / operands / kCaseVocabulary), kCaseVocabulary}};
  };
  const auto rows = [](const ValueType& x, DType type) { return ValueType{type, {x.shape[0]}}; };
  const ValueType one = logits(1), two = logits(2);
  const ValueType row = rows(one, dtype), id = rows(one, DType::i32);
  cases.push_back(made<RowMax>({one}, shard));
  cases.push_back(made<RowSumExp>({one, row}, shard));
  cases.push_back(made<RowTarget>({one, id}, shard));
  cases.push_back(made<RowSoftmax>({one, id}, shard));
  cases.push_back(made<Nll>({one, row, row, row, id, row}, shard));
  cases.push_back(
      made<NllGrad>({two, rows(two, dtype), rows(two, dtype), rows(two, DType::i32), rows(two, dtype)}, shard));

  const std::int64_t features = std::max<std::int64_t>(16, std::min(kColumns, elements / 2 / kCaseVocabulary));
  const ValueType table{dtype, {kCaseVocabulary, features}};
  const std::int64_t tokens = std::max<std::int64_t>(1, elements / 2 / features);
  cases.push_back(made<Embed>({{DType::i32, {tokens}}, table}, 0));
  cases.push_back(made<EmbedGrad>({{DType::i32, {tokens}}, table, {dtype, {tokens, features}}}, 0));
}

/// Passes over what lasts from step to step.
void add_state_passes(DType dtype, std::int64_t elements, std::vector<OpCase>& cases) {
  const ValueType sums{DType::f64, {4}}, one = matrix_of(dtype, elements), part = matrix_of(dtype, elements / 7);
  cases.push_back(made<Zero>({one}));
  cases.push_back(made<SumSquares>({one}));
  cases.push_back(made<AdamW>({part, part, part, part, sums, sums}, AdamW::Options{}));
}

}  // namespace

std::int64_t OpCase::footprint() const {
  const std::vector<ValueType> results = outputs();
  std::int64_t bytes = 0;
  for (const auto* types : {&inputs, &results})
    for (const ValueType& type : *types) bytes += type.dtype == DType::i32 ? 0 : type.bytes();
  for (const Alias& alias : definition->aliases()) bytes -= results[static_cast<std::size_t>(alias.output)].bytes();
  return bytes;
}

std::vector<OpCase> linear_cases(DType dtype, std::int64_t rows, std::int64_t in, std::int64_t out) {
  const ValueType x{dtype, {rows, in}}, w{dtype, {in, out}}, y{dtype, {rows, out}};
  return {made<Matmul>({x, w}, Matmul::Form::nn), made<Matmul>({y, w}, Matmul::Form::nt),
          made<Matmul>({x, y}, Matmul::Form::tn)};
}

AttentionCases attention_cases(DType dtype, std::int64_t sequences, std::int64_t length, std::int64_t heads,
                               std::int64_t head_dim) {
  const std::int64_t rows = sequences * length, features = heads * head_dim;
  const Attention composite({head_dim, sequences}, {}, {}, 0);
  AttentionBlock block;
  block.query_end = block.key_end = static_cast<std::int32_t>(length);
  block.causal = true;
  const ValueType q{dtype, {rows, features}}, kv{dtype, {rows, 2, features}}, lse{dtype, {rows, heads}};
  const ValueType row_ids{DType::i32, {rows, 2}}, step{DType::i32, {1}};
  const std::vector<AttentionBlock> blocks{block};
  return {made<AttentionStep>({q, kv, row_ids, step}, composite, blocks, true),
          made<AttentionStepGrad>({q, kv, row_ids, step, q, lse, q}, composite, blocks, true)};
}

std::vector<OpCase> pass_cases(DType dtype, std::int64_t bytes) {
  std::vector<OpCase> cases;
  add_matrix_passes(dtype, bytes / size_of(dtype), cases);
  add_vocabulary_passes(dtype, bytes / size_of(dtype), cases);
  add_state_passes(dtype, bytes / size_of(dtype), cases);
  return cases;
}

OpCase smallest_case() { return made<Zero>({{DType::f32, {1}}}); }

}  // namespace annulus
