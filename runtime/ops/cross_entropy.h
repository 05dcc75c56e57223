#pragma once

#include "runtime/ops/op_kind.h"
#include "runtime/ops/rules.h"

namespace annulus {

/// Which columns of the vocabulary this rank's logits are.
struct VocabularyShard {
  std::int64_t offset = 0;      ///< global id of the first column
  std::int64_t vocabulary = 0;  ///< unpadded size: columns with larger ids are left out of everything
};

/// What the kinds below share.
template <OpKind Kind>
class OverVocabulary : public OpOfKind<Kind> {
 public:
  explicit OverVocabulary(VocabularyShard shard) : shard_(shard) {}
  const VocabularyShard& shard() const { return shard_; }

 private:
  VocabularyShard shard_;
};

/// Cross entropy over a vocabulary that may be sharded (Megatron-LM, arXiv 1909.08053 section 3): the rows' maximum,
/// sum of exponentials and target logit, each reduced over the shards by the model, then the loss. All [rows], and
/// wide, as the weights are.
class RowMax final : public OverVocabulary<OpKind::row_max> {
 public:
  using OverVocabulary::OverVocabulary;
  ANNULUS_OP_RULES
};

/// Inputs logits, max; output sum over columns of exp(logit - max).
class RowSumExp final : public OverVocabulary<OpKind::row_sum_exp> {
 public:
  using OverVocabulary::OverVocabulary;
  ANNULUS_OP_RULES
};

/// Inputs logits, targets i32; output the target's logit, 0 where another rank has it.
class RowTarget final : public OverVocabulary<OpKind::row_target> {
 public:
  using OverVocabulary::OverVocabulary;
  ANNULUS_OP_RULES
};

/// What the three above find, in one pass over the logits of ranks that hold the whole vocabulary: inputs logits,
/// targets; outputs max, sum of exponentials, target's logit. `fuse` (fusion.h) puts them together.
class RowSoftmax final : public OverVocabulary<OpKind::row_softmax> {
 public:
  using OverVocabulary::OverVocabulary;
  ANNULUS_OP_RULES
};

/// Inputs logits (for the gradient alone), sum_exp, max, target logit, targets, weights; output sums f64 [2] =
/// (sum of weight * (ln sum_exp + max - target logit), sum of weights): not normalised. With separate gradient weights
/// a further input stands for the weights in the gradient: they are scaled, so that gradients do not vanish in f16.
class Nll final : public OverVocabulary<OpKind::nll> {
 public:
  enum class GradientWeights : std::uint8_t { same, separate };
  explicit Nll(VocabularyShard shard, GradientWeights gradient_weights = GradientWeights::same)
      : OverVocabulary(shard), gradient_weights_(gradient_weights) {}
  ANNULUS_OP_RULES

 private:
  GradientWeights gradient_weights_;
};

/// Inputs logits, sum_exp, max, targets, weights; output the gradient of the unnormalised loss, over the logits' own
/// memory.
class NllGrad final : public OverVocabulary<OpKind::nll_grad> {
 public:
  using OverVocabulary::OverVocabulary;
  std::vector<Alias> aliases() const override { return {{0, 0}}; }
  ANNULUS_OP_RULES
};

}  // namespace annulus
