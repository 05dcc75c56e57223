#pragma once

#include <compare>

#include "runtime/ops/elementwise.h"
#include "runtime/ops/op_kind.h"
#include "runtime/ops/rules.h"

namespace annulus {

/// What a product does to its result c before c is written for the first and only time: what AddBias, then Add (or
/// Accumulate), then Gelu or GeluGrad would do in passes of their own; and the type in which c is written.
struct ProductEpilogue {
  enum class Bias : std::uint8_t { none, of_columns };  ///< of_columns: an input [n...] is added to every row
  enum class Addend : std::uint8_t {
    none,
    operand,   ///< an input of c's shape is added
    in_place,  ///< the same, and c lies in its memory
  };
  enum class Finish : std::uint8_t {
    none,
    gelu,            ///< gelu(c); with no addend, as the two that follow
    gelu_and_input,  ///< gelu(c), and as a second output c, which the backward pass reads
    gelu_slope,      ///< c gelu'(x), where x is an input of c's shape
  };
  enum class Output : std::uint8_t {
    as_operands,
    wide,  ///< not rounded to a half: gradients of weights
  };
  Bias bias = Bias::none;
  Addend addend = Addend::none;
  Output output = Output::as_operands;
  Finish finish = Finish::none;
  Activation activation = Activation::gelu_tanh;  ///< of the finish

  bool operator==(const ProductEpilogue&) const = default;
  auto operator<=>(const ProductEpilogue&) const = default;
};

/// c = op(a) op(b); each operand is seen as the matrix [dim 0, product of the other dims].
/// nn: [m, k] x [k, n...] -> [m, n...]; nt: [m, k...] x [n, k...] -> [m, n]; tn: [k, m] x [k, n...] -> [m, n...].
/// One rule serves the forward product, the data gradient (nt) and the weight gradient (tn). a and b are of one type.
///
/// Behind a and b come the operands of the epilogue, of c's type: bias, addend, x. Models record those kinds apart;
/// `fuse` (fusion.h) puts them together.
class Matmul final : public OpOfKind<OpKind::matmul> {
 public:
  using Bias = ProductEpilogue::Bias;
  using Addend = ProductEpilogue::Addend;
  using Output = ProductEpilogue::Output;
  using Finish = ProductEpilogue::Finish;
  enum class Form : std::uint8_t { nn, nt, tn };
  explicit Matmul(Form form, ProductEpilogue epilogue = {});
  Form form() const { return form_; }
  const ProductEpilogue& epilogue() const { return epilogue_; }
  Bias bias() const { return epilogue_.bias; }
  Addend addend() const { return epilogue_.addend; }
  Output output() const { return epilogue_.output; }
  Finish finish() const { return epilogue_.finish; }

  struct Sizes {
    std::int64_t m = 0, n = 0, k = 0;
    auto operator<=>(const Sizes&) const = default;
  };
  Sizes sizes(const Shape& a, const Shape& b) const;

  /// Number of the output that is the product before its finish.
  std::size_t unfinished_output() const { return finish() == Finish::gelu_and_input ? 1 : 0; }
  /// Inputs that the epilogue adds, and that its finish reads, last.
  std::size_t addend_input() const { return bias() == Bias::none ? 2 : 3; }
  std::size_t slope_input() const { return addend_input() + (addend() == Addend::none ? 0 : 1); }

  std::string attributes() const override;
  std::vector<Alias> aliases() const override;
  bool is_linear() const override { return finish() == Finish::none || finish() == Finish::gelu_slope; }
  ANNULUS_OP_RULES

 private:
  std::size_t input_count() const { return slope_input() + (finish() == Finish::gelu_slope ? 1 : 0); }

  Form form_;
  ProductEpilogue epilogue_;
};

}  // namespace annulus
