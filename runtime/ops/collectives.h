#pragma once

#include "runtime/ops/op_kind.h"
#include "runtime/ops/rules.h"

namespace annulus {

/// Sums (or takes the maximum of) what the ranks of `axes` hold: partial -> replicated; Megatron's *g*. Its gradient is
/// the identity. With `in_place` several values of one placement are reduced by one call: a bucket of gradients.
class AllReduce final : public OpOfKind<OpKind::all_reduce> {
 public:
  enum class Storage : std::uint8_t { fresh, in_place };
  AllReduce(AxisSet axes, Reduction reduction, Storage storage = Storage::fresh, std::size_t values = 1)
      : axes_(axes), reduction_(reduction), storage_(storage), values_(values) {}
  /// The same in the memory of its operands.
  AllReduce in_place() const { return {axes_, reduction_, Storage::in_place, values_}; }
  std::string attributes() const override;
  std::optional<CollectiveCall> collective() const override;
  std::vector<Alias> aliases() const override;
  std::size_t contiguous_inputs() const override { return values_; }
  ANNULUS_OP_RULES

 private:
  AxisSet axes_;
  Reduction reduction_;
  Storage storage_;
  std::size_t values_;
};

/// What the collectives that move parts of a dim share.
template <OpKind Kind, CollectiveKind Call>
class PartCollective : public OpOfKind<Kind> {
 public:
  PartCollective(AxisSet axes, int dim) : axes_(axes), dim_(dim) {}
  AxisSet axes() const { return axes_; }
  int dim() const { return dim_; }
  std::string attributes() const override { return "dim " + std::to_string(dim_); }
  std::optional<CollectiveCall> collective() const override {
    return CollectiveCall{Call, axes_, Reduction::sum, dim_, 0};
  }

 private:
  AxisSet axes_;
  int dim_;
};

/// Joins the shards of `dim`: sharded(dim) -> replicated. Its gradient is a reduce-scatter of what arrives partial, a
/// slice of what arrives replicated.
class AllGather final : public PartCollective<OpKind::all_gather, CollectiveKind::all_gather> {
 public:
  using PartCollective::PartCollective;
  ANNULUS_OP_RULES
};

/// Sums over the ranks of `axes` and keeps this rank's part of `dim`: partial -> sharded(dim). Its gradient is an
/// all-gather.
class ReduceScatter final : public PartCollective<OpKind::reduce_scatter, CollectiveKind::reduce_scatter> {
 public:
  using PartCollective::PartCollective;
  ANNULUS_OP_RULES
};

/// Keeps this rank's part of `dim`, without communication: replicated -> sharded(dim). Its gradient is an all-gather.
class Slice final : public OpOfKind<OpKind::slice> {
 public:
  /// `index` of `parts`: this rank's, from the mesh.
  Slice(AxisSet axes, int dim, int index, int parts) : axes_(axes), dim_(dim), index_(index), parts_(parts) {}
  int dim() const { return dim_; }
  int index() const { return index_; }
  int parts() const { return parts_; }
  std::string attributes() const override;
  ANNULUS_OP_RULES

 private:
  AxisSet axes_;
  int dim_, index_, parts_;
};

/// A ring hop over one axis: every rank gets what the rank `distance` before it holds. Only lowerings record it, and
/// give it values whose owner they keep track of; the placement does not change.
class Shift final : public OpOfKind<OpKind::shift> {
 public:
  Shift(AxisSet axes, int distance) : axes_(axes), distance_(distance) {}
  std::string attributes() const override;
  std::optional<CollectiveCall> collective() const override;
  ANNULUS_OP_RULES

 private:
  AxisSet axes_;
  int distance_;
};

/// The ops that differentiation records by itself.
GradientOps gradient_ops();

}  // namespace annulus
