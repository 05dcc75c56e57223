#pragma once

#include "runtime/ops/op_kind.h"
#include "runtime/ops/rules.h"

namespace annulus {

/// c = op(a) op(b); each operand is seen as the matrix [dim 0, product of the other dims].
/// nn: [m, k] x [k, n...] -> [m, n...]; nt: [m, k...] x [n, k...] -> [m, n]; tn: [k, m] x [k, n...] -> [m, n...].
/// One rule serves the forward product, the data gradient (nt) and the weight gradient (tn).
class Matmul final : public OpOfKind<OpKind::matmul> {
 public:
  enum class Form : std::uint8_t { nn, nt, tn };
  explicit Matmul(Form form) : form_(form) {}
  Form form() const { return form_; }

  struct Sizes {
    std::int64_t m = 0, n = 0, k = 0;
  };
  Sizes sizes(const Shape& a, const Shape& b) const;

  std::string attributes() const override;
  bool is_linear() const override { return true; }
  ANNULUS_OP_RULES

 private:
  Form form_;
};

}  // namespace annulus
