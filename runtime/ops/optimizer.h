#pragma once

#include "runtime/core/formulas.h"
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

/// Clip's output from its inputs, on any device.
constexpr void clip(double squares, const double* sums, double max_norm, double* out) {
  const double norm = ValueTraits<double>::square_root(squares) / sums[1], allowed = max_norm / (norm + 1e-6);
  out[0] = (max_norm > 0 && allowed < 1 ? allowed : 1) / sums[1];
  out[1] = norm;
  out[2] = sums[0] / sums[1];
  out[3] = sums[1];
}

/// What AdamW's elements need, in the type of the weights; `clip` and `hyper` are its inputs. On any device.
template <class Element>
constexpr AdamWStep<Element> adamw_step(const AdamW::Options& options, const double* clip, const double* hyper) {
  return {.gradient_factor = static_cast<Element>(clip[0]),
          .beta1 = static_cast<Element>(options.beta1),
          .complement1 = static_cast<Element>(1 - options.beta1),
          .beta2 = static_cast<Element>(options.beta2),
          .complement2 = static_cast<Element>(1 - options.beta2),
          .rate = static_cast<Element>(hyper[0]),
          .inverse_correction1 = static_cast<Element>(1 / hyper[1]),
          .root_inverse_correction2 = static_cast<Element>(1 / ValueTraits<double>::square_root(hyper[2])),
          .epsilon = static_cast<Element>(options.epsilon),
          .decay = static_cast<Element>(options.weight_decay)};
}

}  // namespace annulus
