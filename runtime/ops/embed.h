#pragma once

#include "runtime/ops/op_kind.h"
#include "runtime/ops/rules.h"

namespace annulus {

/// y[row] = table[ids[row] - offset], zero for ids outside of this rank's rows of the table [V, D]; ids i32 [rows].
class Embed final : public OpOfKind<OpKind::embed> {
 public:
  explicit Embed(std::int64_t offset) : offset_(offset) {}
  std::int64_t offset() const { return offset_; }
  ANNULUS_OP_RULES

 private:
  std::int64_t offset_;
};

/// Inputs ids, table (for its type alone), dy [rows, D]; output dtable, wide. In place a fourth input is a sum of that
/// type, to which the gradient is added where it lies: only rows that occur in ids are touched.
class EmbedGrad final : public OpOfKind<OpKind::embed_grad> {
 public:
  enum class Target : std::uint8_t { fresh, in_place };
  explicit EmbedGrad(std::int64_t offset, Target target = Target::fresh) : offset_(offset), target_(target) {}
  std::int64_t offset() const { return offset_; }
  Target target() const { return target_; }
  std::string attributes() const override { return target_ == Target::fresh ? "" : "in place"; }
  std::vector<Alias> aliases() const override;
  ANNULUS_OP_RULES

 private:
  std::int64_t offset_;
  Target target_;
};

}  // namespace annulus
