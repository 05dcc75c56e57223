#pragma once

#include <string_view>

#include "runtime/program/op.h"

/// The closed set of op kinds: X(enumerator, class). A device must have a kernel for every *compute* kind; collectives
/// are carried out by communicators; *views* only say where a value lies; composites are lowered (parallel/) before a
/// program runs.
#define ANNULUS_COMPUTE_KINDS(X)            \
  X(matmul, Matmul)                         \
  X(add, Add)                               \
  X(add_bias, AddBias)                      \
  X(column_sum, ColumnSum)                  \
  X(gelu, Gelu)                             \
  X(gelu_grad, GeluGrad)                    \
  X(layer_norm, LayerNorm)                  \
  X(layer_norm_grad, LayerNormGrad)         \
  X(residual_norm, ResidualNorm)            \
  X(embed, Embed)                           \
  X(embed_grad, EmbedGrad)                  \
  X(dropout, Dropout)                       \
  X(row_max, RowMax)                        \
  X(row_sum_exp, RowSumExp)                 \
  X(row_target, RowTarget)                  \
  X(row_softmax, RowSoftmax)                \
  X(nll, Nll)                               \
  X(nll_grad, NllGrad)                      \
  X(attention_step, AttentionStep)          \
  X(attention_step_grad, AttentionStepGrad) \
  X(sum_squares, SumSquares)                \
  X(accumulate, Accumulate)                 \
  X(cast, Cast)                             \
  X(zero, Zero)                             \
  X(slice, Slice)                           \
  X(clip, Clip)                             \
  X(adamw, AdamW)

#define ANNULUS_COLLECTIVE_KINDS(X) \
  X(all_reduce, AllReduce)          \
  X(all_gather, AllGather)          \
  X(reduce_scatter, ReduceScatter)  \
  X(shift, Shift)                   \
  X(scatter_bucket, ScatterBucket)  \
  X(gather_bucket, GatherBucket)

#define ANNULUS_VIEW_KINDS(X) X(bucket_part, BucketPart)

#define ANNULUS_COMPOSITE_KINDS(X) \
  X(attention, Attention)          \
  X(attention_grad, AttentionGrad)

#define ANNULUS_OP_KINDS(X)   \
  ANNULUS_COMPUTE_KINDS(X)    \
  ANNULUS_COLLECTIVE_KINDS(X) \
  ANNULUS_VIEW_KINDS(X)       \
  ANNULUS_COMPOSITE_KINDS(X)

namespace annulus {

enum class OpKind : std::uint16_t {
#define ANNULUS_KIND(enumerator, type) enumerator,
  ANNULUS_OP_KINDS(ANNULUS_KIND)
#undef ANNULUS_KIND
};

constexpr std::string_view name_of(OpKind kind) {
  switch (kind) {
#define ANNULUS_KIND(enumerator, type) \
  case OpKind::enumerator:             \
    return #enumerator;
    ANNULUS_OP_KINDS(ANNULUS_KIND)
#undef ANNULUS_KIND
  }
  return "?";
}

/// What every kind shares: its enumerator and its name.
template <OpKind Kind>
class OpOfKind : public OpDefinition {
 public:
  static constexpr OpKind kKind = Kind;
  OpKind kind() const final { return Kind; }
  std::string_view name() const final { return name_of(Kind); }
};

}  // namespace annulus
