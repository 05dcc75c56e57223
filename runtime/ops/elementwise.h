#pragma once

#include "runtime/ops/op_kind.h"
#include "runtime/ops/rules.h"

namespace annulus {

/// y = a + b, any shape.
class Add final : public OpOfKind<OpKind::add> {
 public:
  ANNULUS_OP_RULES
};

/// y[rows, ...] = x + b[...], the same b for every row.
class AddBias final : public OpOfKind<OpKind::add_bias> {
 public:
  bool is_linear() const override { return true; }
  ANNULUS_OP_RULES
};

/// y[...] = sum of x[rows, ...] over its rows, wide: the gradient of a bias.
class ColumnSum final : public OpOfKind<OpKind::column_sum> {
 public:
  ANNULUS_OP_RULES
};

enum class Activation : std::uint8_t {
  gelu_tanh,  ///< 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), GPT-2's (Hendrycks and Gimpel, arXiv 1606.08415)
  gelu_erf,   ///< 0.5 x (1 + erf(x / sqrt(2)))
};

class Gelu final : public OpOfKind<OpKind::gelu> {
 public:
  explicit Gelu(Activation activation) : activation_(activation) {}
  Activation activation() const { return activation_; }
  std::string attributes() const override { return activation_ == Activation::gelu_tanh ? "tanh" : "erf"; }
  ANNULUS_OP_RULES

 private:
  Activation activation_;
};

/// dx = gelu'(x) dy; inputs x, dy.
class GeluGrad final : public OpOfKind<OpKind::gelu_grad> {
 public:
  explicit GeluGrad(Activation activation) : activation_(activation) {}
  Activation activation() const { return activation_; }
  std::string attributes() const override { return activation_ == Activation::gelu_tanh ? "tanh" : "erf"; }
  ANNULUS_OP_RULES

 private:
  Activation activation_;
};

/// acc += x, in place; inputs acc, x.
class Accumulate final : public OpOfKind<OpKind::accumulate> {
 public:
  std::vector<Alias> aliases() const override { return {{0, 0}}; }
  ANNULUS_OP_RULES
};

/// y = x in another float type, any shape: exact where it widens, rounded to the nearest (to even) where it narrows.
class Cast final : public OpOfKind<OpKind::cast> {
 public:
  explicit Cast(DType to) : to_(to) {}
  DType to() const { return to_; }
  std::string attributes() const override { return "to " + std::string(name_of(to_)); }
  bool is_linear() const override { return true; }
  ANNULUS_OP_RULES

 private:
  DType to_;
};

/// acc = 0, in place.
class Zero final : public OpOfKind<OpKind::zero> {
 public:
  Zero() = default;
  /// In fresh memory and wide, as a share of a sum over `summands`, on which the input is replicated.
  explicit Zero(AxisSet summands) : fresh_(true), summands_(summands) {}
  std::vector<Alias> aliases() const override { return fresh_ ? std::vector<Alias>{} : std::vector<Alias>{{0, 0}}; }
  ANNULUS_OP_RULES

 private:
  bool fresh_ = false;
  AxisSet summands_;
};

/// Attributes of a dropout mask, which is a function of seed, stream, step and global indices alone.
struct DropoutMask {
  double rate = 0;  ///< probability that an element is dropped
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;  ///< `stream_id` of the place in the model
};

/// y = x * mask / (1 - rate); inputs x [rows, columns], row_ids i32 [rows, 2] (sequence in the global batch, position),
/// step i32 [1]. Element (s, p, c) is kept where word c % 4 of philox({s, p, c / 4, 0}, stream_key(seed, stream, step))
/// is at least rate * 2^32; c counts from `column_offset`, this rank's first global column. Its gradient is itself.
class Dropout final : public OpOfKind<OpKind::dropout> {
 public:
  Dropout(DropoutMask mask, std::int64_t column_offset) : mask_(mask), column_offset_(column_offset) {}
  const DropoutMask& mask() const { return mask_; }
  std::int64_t column_offset() const { return column_offset_; }
  std::string attributes() const override;
  bool is_linear() const override { return true; }
  ANNULUS_OP_RULES

 private:
  DropoutMask mask_;
  std::int64_t column_offset_;
};

}  // namespace annulus
