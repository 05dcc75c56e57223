#pragma once

#include "runtime/ops/op_kind.h"
#include "runtime/ops/rules.h"

namespace annulus {

/// y = (x - mean) / sqrt(variance + epsilon) * gamma + beta over the columns of x [rows, D] (notes (1.1), *corrected*:
/// over features, with epsilon); gamma, beta [D]. Second output: statistics [rows, 2] = (mean, 1 / sqrt(variance +
/// epsilon)), wide.
class LayerNorm final : public OpOfKind<OpKind::layer_norm> {
 public:
  explicit LayerNorm(double epsilon) : epsilon_(epsilon) {}
  double epsilon() const { return epsilon_; }
  std::string attributes() const override;
  ANNULUS_OP_RULES

 private:
  double epsilon_;
};

/// Inputs x, gamma, statistics, dy; outputs dx, and dgamma, dbeta, wide.
class LayerNormGrad final : public OpOfKind<OpKind::layer_norm_grad> {
 public:
  ANNULUS_OP_RULES
};

}  // namespace annulus
