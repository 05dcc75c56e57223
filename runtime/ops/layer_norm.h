#pragma once

#include <optional>

#include "runtime/ops/elementwise.h"
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

/// Inputs x, gamma, statistics, dy; outputs dx, and dgamma, dbeta, wide. With an addend, a fifth input of x's shape is
/// added to dx: what the stream's gradient is besides. `fuse` (fusion.h) puts it there.
class LayerNormGrad final : public OpOfKind<OpKind::layer_norm_grad> {
 public:
  enum class Addend : std::uint8_t {
    none,
    operand,
    in_place,  ///< dx lies in the addend's memory
  };
  explicit LayerNormGrad(Addend addend = Addend::none) : addend_(addend) {}
  Addend addend() const { return addend_; }
  std::string attributes() const override;
  std::vector<Alias> aliases() const override;
  ANNULUS_OP_RULES

 private:
  Addend addend_;
};

/// What AddBias, Dropout, Add and LayerNorm do one after another to what joins a stream of residuals:
/// sum = residual + dropout(x + bias), and its norm. Inputs residual, x, gamma, beta [, bias] [, row_ids, step];
/// outputs sum, then y and statistics as LayerNorm's. Models record those kinds apart; `fuse` (fusion.h) puts them
/// together.
class ResidualNorm final : public OpOfKind<OpKind::residual_norm> {
 public:
  enum class Bias : std::uint8_t { none, of_columns };
  ResidualNorm(LayerNorm norm, Bias bias, std::optional<Dropout> dropout)
      : norm_(norm), bias_(bias), dropout_(std::move(dropout)) {}
  const LayerNorm& norm() const { return norm_; }
  Bias bias() const { return bias_; }
  const std::optional<Dropout>& dropout() const { return dropout_; }
  /// Input that row_ids are, where there is dropout; step follows.
  std::size_t row_ids_input() const { return bias_ == Bias::none ? 4 : 5; }
  std::string attributes() const override;
  ANNULUS_OP_RULES

 private:
  std::size_t input_count() const { return row_ids_input() + (dropout_ ? 2 : 0); }

  LayerNorm norm_;
  Bias bias_;
  std::optional<Dropout> dropout_;
};

}  // namespace annulus
