#pragma once

#include "runtime/core/formulas.h"
#include "runtime/ops/op_kind.h"
#include "runtime/ops/rules.h"

namespace annulus {

/// Sum of the squares of all elements of any number of tensors of one element type, f64 [1]: replicated of replicated,
/// partial of sharded, so that each class is reduced once.
class SumSquares final : public OpOfKind<OpKind::sum_squares> {
 public:
  ANNULUS_OP_RULES
};

/// Inputs sum of squared gradients f64 [1], sums f64 [2] = (loss, loss weights), both unnormalised; output f64 [4] =
/// (factor, gradient norm, loss, sum of weights): norm = sqrt(squares) / weights; the factor divides by the weights and
/// clips: min(1, max_norm / (norm + 1e-6)) / weights. max_norm 0 leaves the norm alone. With loss scaling a third input
/// f64 [1] is what the gradients were scaled by: the norm is that of the unscaled ones, the factor unscales, and is 0,
/// which leaves the weights as they are, where the norm is not finite.
class Clip final : public OpOfKind<OpKind::clip> {
 public:
  enum class LossScaling : std::uint8_t { off, on };
  explicit Clip(double max_norm, LossScaling loss_scaling = LossScaling::off)
      : max_norm_(max_norm), loss_scaling_(loss_scaling) {}
  double max_norm() const { return max_norm_; }
  LossScaling loss_scaling() const { return loss_scaling_; }
  std::string attributes() const override;
  ANNULUS_OP_RULES

 private:
  double max_norm_;
  LossScaling loss_scaling_;
};

/// One step of AdamW with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), as torch.optim.AdamW.
/// Updates any number of weights, of one element type but any shapes, so that a device launches few kernels for them.
/// Inputs are n weights, n gradients, n first and n second moments (the i-th of each of one shape), clip f64 [4] (its
/// first element multiplies the gradients), hyper f64 [4] = (learning rate, 1 - beta1^t, 1 - beta2^t, unused). Outputs
/// are weights, first and second moments, updated in place; nothing changes where the factor is 0. With working copies
/// (halves, of the weights' shapes: n further inputs, which are not read, and n further outputs in their place) the
/// weights are masters in f32, of which the copies are the rounded values.
class AdamW final : public OpOfKind<OpKind::adamw> {
 public:
  struct Options {
    double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, weight_decay = 0.1;
  };
  enum class WorkingCopy : std::uint8_t { none, rounded };
  explicit AdamW(Options options, WorkingCopy working_copy = WorkingCopy::none, std::size_t weights = 1)
      : options_(options), working_copy_(working_copy), weights_(weights) {}
  const Options& options() const { return options_; }
  WorkingCopy working_copy() const { return working_copy_; }
  std::size_t weights() const { return weights_; }
  std::string attributes() const override;
  std::vector<Alias> aliases() const override;
  ANNULUS_OP_RULES

 private:
  /// Number `list` of the n-fold inputs: weights, gradients, first moments, second moments, working copies.
  template <class Operand>
  std::span<const Operand> list(std::span<const Operand> inputs, std::size_t list) const {
    return inputs.subspan(list * weights_ + (list == 4 ? 2 : 0), weights_);
  }
  std::size_t lists() const { return working_copy_ == WorkingCopy::rounded ? 5 : 4; }

  Options options_;
  WorkingCopy working_copy_;
  std::size_t weights_;
};

/// Clip's output from its inputs, on any device; `loss_scale` is null without loss scaling.
constexpr void clip(double squares, const double* sums, const double* loss_scale, double max_norm, double* out) {
  const double weights = loss_scale ? sums[1] * *loss_scale : sums[1];
  const double norm = ValueTraits<double>::square_root(squares) / weights, allowed = max_norm / (norm + 1e-6);
  const bool skipped = loss_scale && !(norm - norm == 0);  // infinite, or not a number
  out[0] = skipped ? 0 : (max_norm > 0 && allowed < 1 ? allowed : 1) / weights;
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
