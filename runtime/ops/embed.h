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

/// Inputs ids, table (for its type alone), dy [rows, D]; output dtable.
class EmbedGrad final : public OpOfKind<OpKind::embed_grad> {
 public:
  explicit EmbedGrad(std::int64_t offset) : offset_(offset) {}
  std::int64_t offset() const { return offset_; }
  ANNULUS_OP_RULES

 private:
  std::int64_t offset_;
};

}  // namespace annulus
