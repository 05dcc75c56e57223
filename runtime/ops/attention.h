#pragma once

#include <vector>

#include "runtime/ops/attention_block.h"
#include "runtime/ops/elementwise.h"

namespace annulus {

/// What attention is told of its operands: rows are `sequences` sequences one after another.
struct AttentionShape {
  std::int64_t head_dim = 0;   ///< H
  std::int64_t sequences = 0;  ///< local
};

/// The mesh axes that attention treats apart: sequences are spread over `batch`, positions over `ring`, in the order of
/// a layout; key-value heads may be replicated over `replica` where query heads are sharded.
struct AttentionAxes {
  AxisSet batch, ring, replica;
};

/// Causal attention, softmax(q k^T / sqrt(H)) v, with dropout on the probabilities: a composite, which parallel/
/// expands into a ring of steps. Inputs q [rows, A*H], kv [rows, 2, G*H] (part 0 keys, part 1 values; query head a
/// reads kv head a / (A/G)), row_ids i32 [rows, 2] = (sequence in the global batch, position), step i32 [1]. Outputs
/// out [rows, A*H], lse [rows, A], the log-sum-exp of each row's scores, wide.
class Attention final : public OpOfKind<OpKind::attention> {
 public:
  Attention(AttentionShape shape, AttentionAxes axes, DropoutMask dropout, std::int64_t head_offset)
      : shape_(shape), axes_(axes), dropout_(dropout), head_offset_(head_offset) {}
  const AttentionShape& shape() const { return shape_; }
  const AttentionAxes& axes() const { return axes_; }
  const DropoutMask& dropout() const { return dropout_; }
  std::int64_t head_offset() const { return head_offset_; }
  std::string attributes() const override;
  ANNULUS_OP_RULES

 private:
  AttentionShape shape_;
  AttentionAxes axes_;
  DropoutMask dropout_;
  std::int64_t head_offset_;  ///< global index of this rank's first query head
};

/// Inputs q, kv, row_ids, step, out, lse, dout; outputs dq, dkv.
class AttentionGrad final : public OpOfKind<OpKind::attention_grad> {
 public:
  explicit AttentionGrad(const Attention& forward) : forward_(forward) {}
  const Attention& forward() const { return forward_; }
  std::string attributes() const override { return forward_.attributes(); }
  ANNULUS_OP_RULES

 private:
  Attention forward_;
};

/// What a step of a ring leaves. Halves alone tell the two apart.
enum class StepResult : std::uint8_t {
  running,  ///< wide, for the next step, where earlier results lie
  rounded,  ///< of the operands' type, in fresh memory: the last step's
};

/// What the kinds of one ring step share: which attention it is a part of, its blocks, whether earlier steps left a
/// result, which is running.
template <OpKind Kind>
class RingStep : public OpOfKind<Kind> {
 public:
  RingStep(const Attention& composite, std::vector<AttentionBlock> blocks, bool first,
           StepResult result = StepResult::running)
      : composite_(composite), blocks_(std::move(blocks)), first_(first), result_(result) {}
  const Attention& composite() const { return composite_; }
  const std::vector<AttentionBlock>& blocks() const { return blocks_; }
  bool first() const { return first_; }  ///< there is no earlier result
  StepResult result() const { return result_; }
  std::string attributes() const override {
    return composite_.attributes() + (result_ == StepResult::rounded ? ", rounded" : "");
  }

 private:
  Attention composite_;
  std::vector<AttentionBlock> blocks_;
  bool first_;
  StepResult result_;
};

/// One step of the ring: this rank's queries on one rank's keys. Inputs q, kv, row_ids, step [, out, lse: what earlier
/// steps found, updated in place]; outputs out (running or rounded), lse (wide), normalised; a row that has seen no key
/// has out 0 and lse -infinity. Probability (sequence s, head h, query i, key j) is kept where word j % 4 of philox({s,
/// h, i, j / 4}, stream_key(seed, stream, step)) is at least rate * 2^32; all four are global; the log-sum-exp does not
/// know of dropout.
class AttentionStep final : public RingStep<OpKind::attention_step> {
 public:
  using RingStep::RingStep;
  std::vector<Alias> aliases() const override;
  ANNULUS_OP_RULES
};

/// Its gradient, from the final out and lse: P = exp(S - lse) (notes algorithm 3, *corrected*). Inputs q, kv, row_ids,
/// step, out, lse, dout [, dq: of earlier steps, updated in place]; outputs dq (running or rounded), and dkv, this
/// step's own contribution, written anew: wide, to be summed, or rounded where there is no other step.
class AttentionStepGrad final : public RingStep<OpKind::attention_step_grad> {
 public:
  using RingStep::RingStep;
  std::vector<Alias> aliases() const override;
  ANNULUS_OP_RULES
};

}  // namespace annulus
