#pragma once

#include "runtime/ops/op_kind.h"
#include "runtime/ops/rules.h"

namespace annulus {

/// Sum of the squares of x, f64 [1]: replicated of replicated, partial of sharded, so that each class is reduced once.
class SumSquares final : public OpOfKind<OpKind::sum_squares> {
 public:
  ANNULUS_OP_RULES
};

/// Inputs sum of squared gradients f64 [1], sums f64 [2] = (loss, loss weights), both unnormalised; output f64 [4] =
/// (factor, gradient norm, loss, sum of weights): norm = sqrt(squares) / weights; the factor divides by the weights and
/// clips: min(1, max_norm / (norm + 1e-6)) / weights. max_norm 0 leaves the norm alone.
class Clip final : public OpOfKind<OpKind::clip> {
 public:
  explicit Clip(double max_norm) : max_norm_(max_norm) {}
  double max_norm() const { return max_norm_; }
  std::string attributes() const override;
  ANNULUS_OP_RULES

 private:
  double max_norm_;
};

/// One step of AdamW with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), as torch.optim.AdamW.
/// Inputs weight, gradient, first and second moment (all of one shape), clip f64 [4] (its first element multiplies the
/// gradient), hyper f64 [4] = (learning rate, 1 - beta1^t, 1 - beta2^t, unused). Weight and moments are updated in
/// place.
class AdamW final : public OpOfKind<OpKind::adamw> {
 public:
  struct Options {
    double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, weight_decay = 0.1;
  };
  explicit AdamW(Options options) : options_(options) {}
  const Options& options() const { return options_; }
  std::string attributes() const override;
  std::vector<Alias> aliases() const override { return {{0, 0}, {1, 2}, {2, 3}}; }
  ANNULUS_OP_RULES

 private:
  Options options_;
};

}  // namespace annulus
