#pragma once

#include "runtime/ops/op_kind.h"
#include "runtime/ops/rules.h"

namespace annulus {

/// Ops on a *bucket*: values of one element type that lie one after another in memory and are divided evenly over the
/// ranks of `axes`, wherever one value ends and the next begins. A part is a flat value [elements, 1]: its rows are
/// sharded over `axes`; its columns over the other axes, where those shard every value of the bucket, in whatever dims.
/// No mixture of sharded and replicated values is a bucket.
template <OpKind Kind>
class BucketOp : public OpOfKind<Kind> {
 public:
  BucketOp(AxisSet axes, std::size_t values) : axes_(axes), values_(values) {}
  AxisSet axes() const { return axes_; }
  std::size_t values() const { return values_; }
  std::size_t contiguous_inputs() const override { return values_; }

 private:
  AxisSet axes_;
  std::size_t values_;
};

/// Sums a bucket over the ranks of `axes` and keeps this rank's part: partial -> sharded(0).
class ScatterBucket final : public BucketOp<OpKind::scatter_bucket> {
 public:
  using BucketOp::BucketOp;
  std::optional<CollectiveCall> collective() const override;
  ANNULUS_OP_RULES
};

/// This rank's part of a bucket that all ranks of `axes` hold, where it lies: replicated -> sharded(0), without a copy.
class BucketPart final : public BucketOp<OpKind::bucket_part> {
 public:
  /// Part `index`, of `elements` elements.
  BucketPart(AxisSet axes, std::size_t values, int index, std::int64_t elements)
      : BucketOp(axes, values), index_(index), elements_(elements) {}
  std::vector<Alias> aliases() const override { return {{0, 0, index_ * elements_}}; }
  bool is_view() const override { return true; }
  ANNULUS_OP_RULES

 private:
  int index_;
  std::int64_t elements_;
};

/// Inputs the values of a bucket, of which this rank's part may have changed, and that part (a `BucketPart`, or what
/// overwrote one); outputs the values with all parts as their owners have them, in place.
class GatherBucket final : public BucketOp<OpKind::gather_bucket> {
 public:
  using BucketOp::BucketOp;
  std::optional<CollectiveCall> collective() const override;
  std::vector<Alias> aliases() const override;
  ANNULUS_OP_RULES
};

}  // namespace annulus
