#pragma once

#include <vector>

#include "runtime/program/op.h"

namespace annulus {

/// An op on operands of given types, to be timed.
struct OpCase {
  OpPointer definition;
  std::vector<ValueType> inputs;

  std::vector<ValueType> outputs() const { return definition->infer({}, inputs); }
  Work work() const { return definition->work(inputs, outputs()); }
  /// Bytes of memory that a call touches, but for ids.
  std::int64_t footprint() const;
};

/// Ids among the inputs of cases are below this: tables have as many rows, logits as many columns.
inline constexpr std::int64_t kCaseVocabulary = 4096;

/// A linear layer's products on `rows` tokens: forward, data gradient, weight gradient.
std::vector<OpCase> linear_cases(DType dtype, std::int64_t rows, std::int64_t in, std::int64_t out);

inline constexpr std::int64_t kHeadDim = 64;  ///< as most transformers have it
struct AttentionCases {
  OpCase forward, backward;
};
AttentionCases attention_cases(DType dtype, std::int64_t sequences, std::int64_t length, std::int64_t heads,
                               std::int64_t head_dim = kHeadDim);

/// The kinds that are passes over memory, each reading and writing about `bytes`.
std::vector<OpCase> pass_cases(DType dtype, std::int64_t bytes);

/// The least work there is: what remains is what starting an op costs.
OpCase smallest_case();

}  // namespace annulus
