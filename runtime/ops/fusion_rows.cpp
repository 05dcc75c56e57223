#include "runtime/ops/fusion_rows.h"

#include <algorithm>

#include "runtime/ops/op_table.h"
#include "runtime/ops/program_rewriter.h"

namespace annulus {
namespace {

class RowFuser final : private ProgramRewriter {
 public:
  using ProgramRewriter::ProgramRewriter;

  void run() {
    for (int i = 0; i < count(); ++i) {
      if (const auto* norm = as<LayerNorm>(definition(i))) fuse_norm(i, *norm);
      if (const auto* sum_exp = as<RowSumExp>(definition(i))) fuse_softmax(i, *sum_exp);
      if (as<Add>(definition(i)) && !fuse_norm_grad(i, 1)) fuse_norm_grad(i, 0);
    }
    put_back();
  }

 private:
  /// What joins the stream: the value that a sum adds, and what has been done to it before.
  struct Joining {
    ValueId x = kNoValue, residual = kNoValue, bias = kNoValue;
    std::optional<Dropout> dropout;
    std::vector<ValueId> dropout_inputs;  ///< row_ids, step
    std::vector<int> ops;                 ///< that become part of the sum
  };
  Joining joining(int sum, std::size_t which) {
    Joining found;
    found.x = op(sum).inputs[which];
    found.residual = op(sum).inputs[1 - which];
    int reader = sum;
    const auto step_back = [&](int producer) {
      found.x = op(producer).inputs[0];
      found.ops.push_back(producer);
      reader = producer;
    };
    // What is done to x is done later, where the sum is: others must have left its operands as they were.
    const auto doer = [&] {
      const int producer = sole_producer(found.x, reader);
      return producer != kNone && keeps_operands(producer, producer + 1, sum) ? producer : kNone;
    };
    int producer = doer();
    if (producer != kNone && as<Dropout>(definition(producer))) {
      found.dropout = *as<Dropout>(definition(producer));
      found.dropout_inputs.assign(op(producer).inputs.begin() + 1, op(producer).inputs.end());
      step_back(producer);
      producer = doer();
    }
    if (producer != kNone && as<AddBias>(definition(producer))) {
      found.bias = op(producer).inputs[1];
      step_back(producer);
    }
    return found;
  }

  /// The norm of a sum joins that sum, if it is the first that reads it.
  void fuse_norm(int index, const LayerNorm& norm) {
    const ValueId stream = op(index).inputs[0], gamma = op(index).inputs[1], beta = op(index).inputs[2];
    const int sum = producer(stream);
    if (sum == kNone || !as<Add>(definition(sum)) || op(sum).segment != op(index).segment ||
        op(sum).phase != op(index).phase || std::ranges::min(readers(stream)) != index || !is_at_hand(gamma, sum) ||
        !is_at_hand(beta, sum))
      return;
    Joining of = joining(sum, 1);
    if (Joining other = joining(sum, 0); other.ops.size() > of.ops.size()) of = std::move(other);
    std::vector<ValueId> inputs{of.residual, of.x, gamma, beta}, outputs{stream};
    if (of.bias != kNoValue) inputs.push_back(of.bias);
    inputs.insert(inputs.end(), of.dropout_inputs.begin(), of.dropout_inputs.end());
    outputs.insert(outputs.end(), op(index).outputs.begin(), op(index).outputs.end());
    using Bias = ResidualNorm::Bias;
    const Bias bias = of.bias == kNoValue ? Bias::none : Bias::of_columns;
    replace(sum, std::make_shared<ResidualNorm>(norm, bias, of.dropout), std::move(inputs), std::move(outputs));
    for (const int part : of.ops) remove(part);
    remove(index);
  }

  /// Maximum, sum of exponentials and target's logit: where the first two have no reduction between them.
  void fuse_softmax(int index, const RowSumExp& sum_exp) {
    const ValueId logits = op(index).inputs[0], largest = op(index).inputs[1];
    const int first = producer(largest);
    if (first == kNone || !as<RowMax>(definition(first)) || op(first).inputs[0] != logits ||
        op(first).segment != op(index).segment)
      return;
    for (const int reader : readers(logits)) {
      if (!as<RowTarget>(definition(reader)) || op(reader).segment != op(first).segment) continue;
      const ValueId targets = op(reader).inputs[1];
      if (!is_at_hand(targets, first)) continue;
      const std::vector<ValueId> found{largest, op(index).outputs[0], op(reader).outputs[0]};
      remove(index);
      remove(reader);
      return replace(first, std::make_shared<RowSoftmax>(sum_exp.shard()), {logits, targets}, found);
    }
  }

  /// y = a + b, where operand `which` is the gradient of a norm's input.
  bool fuse_norm_grad(int index, std::size_t which) {
    const ValueId dx = op(index).inputs[which], other = op(index).inputs[1 - which], y = op(index).outputs[0];
    const int grad = sole_producer(dx, index);
    if (grad == kNone || !as<LayerNormGrad>(definition(grad)) || dx != op(grad).outputs[0] || !is_at_hand(other, grad))
      return false;
    using Addend = LayerNormGrad::Addend;
    if (as<LayerNormGrad>(definition(grad))->addend() != Addend::none) return false;
    const bool takes_over = may_be_overwritten(other) && unread(other, grad, count(), index);
    change(grad, std::make_shared<LayerNormGrad>(takes_over ? Addend::in_place : Addend::operand), other, y);
    remove(index);
    if (takes_over) share_storage(y, other);
    return true;
  }
};

}  // namespace

void fuse_rows(Program& program) { RowFuser(program).run(); }

}  // namespace annulus
