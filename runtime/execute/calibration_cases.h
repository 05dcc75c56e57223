#pragma once

#include <vector>

#include "runtime/program/op.h"

namespace annulus {

/// What else a step touches between two touches of an operand, in bytes: it decides from which cache, or from which
/// memory, the operand comes.
namespace working_set {
inline constexpr std::int64_t kLogits = std::int64_t{16} << 20;  ///< the loss's ops follow one another
inline constexpr std::int64_t kActivations = std::int64_t{64} << 20;
inline constexpr std::int64_t kWeights = std::int64_t{1} << 40;  ///< all there is
}  // namespace working_set

/// An op on operands of given types, to be timed.
struct OpCase {
  OpPointer definition;
  std::vector<ValueType> inputs;
  std::int64_t working_set = working_set::kActivations;

  std::vector<ValueType> outputs() const { return definition->infer({}, inputs); }
  Work work() const { return definition->work(inputs, outputs()); }
};

/// Ids among the inputs of cases are below this: tables have as many rows, logits as many columns.
inline constexpr std::int64_t kCaseVocabulary = 4096;

/// A linear layer's products on `rows` tokens: forward, data gradient, weight gradient.
std::vector<OpCase> linear_cases(DType dtype, std::int64_t rows, std::int64_t in, std::int64_t out);

struct AttentionCases {
  OpCase forward, backward;
};
AttentionCases attention_cases(DType dtype, std::int64_t sequences, std::int64_t length, std::int64_t heads);

/// The kinds that are passes over memory, each reading and writing about `bytes`.
std::vector<OpCase> pass_cases(DType dtype, std::int64_t bytes);
/// Those among them that pass once a step over what lasts from step to step; `working_set` of it.
std::vector<OpCase> state_cases(DType dtype, std::int64_t bytes, std::int64_t working_set);

/// The least work there is: what remains is what starting an op costs.
OpCase smallest_case();

}  // namespace annulus
