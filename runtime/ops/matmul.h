#pragma once

#include "runtime/ops/op_kind.h"
#include "runtime/ops/rules.h"

namespace annulus {

/// c = op(a) op(b); each operand is seen as the matrix [dim 0, product of the other dims].
/// nn: [m, k] x [k, n...] -> [m, n...]; nt: [m, k...] x [n, k...] -> [m, n]; tn: [k, m] x [k, n...] -> [m, n...].
/// One rule serves the forward product, the data gradient (nt) and the weight gradient (tn).
///
/// Behind a and b come the operands of the epilogue, which is what AddBias and then Add (or Accumulate) would do to c:
/// c is written once instead of three times. Models record these kinds apart; `fuse` (fusion.h) puts them together.
class Matmul final : public OpOfKind<OpKind::matmul> {
 public:
  enum class Form : std::uint8_t { nn, nt, tn };
  enum class Bias : std::uint8_t { none, of_columns };  ///< of_columns: an input [n...] is added to every row
  enum class Addend : std::uint8_t {
    none,
    operand,   ///< an input of c's shape is added
    in_place,  ///< the same, and c lies in its memory
  };
  explicit Matmul(Form form, Bias bias = Bias::none, Addend addend = Addend::none)
      : form_(form), bias_(bias), addend_(addend) {}
  Form form() const { return form_; }
  Bias bias() const { return bias_; }
  Addend addend() const { return addend_; }
  bool has_epilogue() const { return bias_ != Bias::none || addend_ != Addend::none; }

  struct Sizes {
    std::int64_t m = 0, n = 0, k = 0;
  };
  Sizes sizes(const Shape& a, const Shape& b) const;

  std::string attributes() const override;
  std::vector<Alias> aliases() const override;
  bool is_linear() const override { return true; }
  ANNULUS_OP_RULES

 private:
  /// Input that the epilogue adds last.
  std::size_t addend_input() const { return bias_ == Bias::none ? 2 : 3; }
  std::size_t input_count() const { return addend_input() + (addend_ == Addend::none ? 0 : 1); }

  Form form_;
  Bias bias_;
  Addend addend_;
};

}  // namespace annulus
