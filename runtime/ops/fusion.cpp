#include "runtime/ops/fusion.h"

#include "runtime/ops/fusion_rows.h"
#include "runtime/ops/op_table.h"
#include "runtime/ops/program_rewriter.h"

namespace annulus {
namespace {

using Addend = ProductEpilogue::Addend;
using Finish = ProductEpilogue::Finish;

/// The op with its epilogue changed, where it is a product and its epilogue is not beyond that yet; else null.
template <class Change>
OpPointer with_epilogue(const OpDefinition& producer, const Change& change) {
  const auto* product = as<Matmul>(producer);
  if (!product || product->finish() != Finish::none || product->addend() != Addend::none) return nullptr;
  ProductEpilogue epilogue = product->epilogue();
  return change(epilogue) ? std::make_shared<Matmul>(product->form(), epilogue) : nullptr;
}

/// `producer`, with a further operand added to its result.
OpPointer with_addend(const OpDefinition& producer, Addend addend) {
  return with_epilogue(producer, [&](ProductEpilogue& epilogue) {
    epilogue.addend = addend;
    return true;
  });
}

/// `producer`, with its result added to a further operand in that operand's memory; null where no kernel does that.
OpPointer in_place(const OpDefinition& producer) {
  if (const auto* embed = as<EmbedGrad>(producer); embed && embed->target() == EmbedGrad::Target::fresh)
    return std::make_shared<EmbedGrad>(embed->offset(), EmbedGrad::Target::in_place);
  return with_addend(producer, Addend::in_place);
}

OpPointer with_bias(const OpDefinition& producer) {
  return with_epilogue(producer, [](ProductEpilogue& epilogue) {
    const bool free = epilogue.bias == ProductEpilogue::Bias::none;
    epilogue.bias = ProductEpilogue::Bias::of_columns;
    return free;
  });
}

OpPointer with_finish(const OpDefinition& producer, Finish finish, Activation activation) {
  return with_epilogue(producer, [&](ProductEpilogue& epilogue) {
    epilogue.finish = finish;
    epilogue.activation = activation;
    return true;
  });
}

class Fuser final : private ProgramRewriter {
 public:
  using ProgramRewriter::ProgramRewriter;

  void run() {
    for (int i = 0; i < count(); ++i) {
      const OpDefinition& definition = *op(i).definition;
      if (as<AddBias>(definition)) fuse_bias(i);
      if (as<Add>(definition) && !fuse_sum(i, 1)) fuse_sum(i, 0);
      if (as<Accumulate>(definition)) fuse_accumulation(i);
      if (const auto* gelu = as<Gelu>(definition)) fuse_activation(i, gelu->activation());
      if (const auto* grad = as<GeluGrad>(definition)) fuse_slope(i, grad->activation());
    }
    for (int i = 0; i < count(); ++i)
      if (as<AllReduce>(*op(i).definition)) reduce_in_place(i);
    put_back();
  }

 private:
  void fuse_bias(int index) {
    const ValueId x = op(index).inputs[0], bias = op(index).inputs[1], y = op(index).outputs[0];
    const int producer = sole_producer(x, index);
    if (producer == kNone || !is_at_hand(bias, producer)) return;
    OpPointer fused = with_bias(*op(producer).definition);
    if (!fused) return;
    change(producer, std::move(fused), bias, y);
    remove(index);
  }

  /// y = gelu(x): into the product that makes x, which others may still read.
  void fuse_activation(int index, Activation activation) {
    const ValueId x = op(index).inputs[0], y = op(index).outputs[0];
    const int producer = this->producer(x);
    if (producer == kNone || op(producer).segment != op(index).segment || op(producer).phase != op(index).phase) return;
    const bool sole = sole_producer(x, index) != kNone;
    OpPointer fused = with_finish(*op(producer).definition, sole ? Finish::gelu : Finish::gelu_and_input, activation);
    if (!fused) return;
    op(producer).definition = std::move(fused);
    make(producer, y);
    if (!sole) op(producer).outputs.push_back(x);
    remove(index);
  }

  /// dx = gelu'(x) dy: into the product that makes dy.
  void fuse_slope(int index, Activation activation) {
    const ValueId x = op(index).inputs[0], dy = op(index).inputs[1], dx = op(index).outputs[0];
    const int producer = sole_producer(dy, index);
    if (producer == kNone || !is_at_hand(x, producer)) return;
    OpPointer fused = with_finish(*op(producer).definition, Finish::gelu_slope, activation);
    if (!fused) return;
    change(producer, std::move(fused), x, dx);
    remove(index);
  }

  /// y = a + b: into the op that makes operand `which`.
  bool fuse_sum(int index, std::size_t which) {
    const ValueId x = op(index).inputs[which], other = op(index).inputs[1 - which], y = op(index).outputs[0];
    const int producer = sole_producer(x, index);
    if (producer == kNone || !is_at_hand(other, producer)) return false;
    OpPointer fused = in_place(*op(producer).definition);
    const bool takes_over = fused && may_be_overwritten(other) && unread(other, producer, count(), index);
    if (!takes_over) fused = with_addend(*op(producer).definition, Addend::operand);
    if (!fused) return false;
    change(producer, std::move(fused), other, y);
    remove(index);
    if (takes_over) share_storage(y, other);
    return true;
  }

  /// sum += x, where x was begun by one op and others have added to it in place: the first one begins with the sum.
  void fuse_accumulation(int index) {
    const ValueId sum = op(index).inputs[0], x = op(index).inputs[1], y = op(index).outputs[0];
    const int last = sole_producer(x, index);
    int first = last;
    OpPointer fused;
    while (first != kNone && !(fused = in_place(*op(first).definition))) {
      const auto aliases = op(first).definition->aliases();
      const bool adds = as<Matmul>(*op(first).definition) || as<EmbedGrad>(*op(first).definition);
      if (!adds || aliases.empty()) return;
      first = sole_producer(op(first).inputs[static_cast<std::size_t>(aliases.front().input)], first);
    }
    if (!fused || !is_at_hand(sum, first) || !unread(sum, first, index, index)) return;
    change(first, std::move(fused), sum, op(first).outputs[0]);
    make(last, y);
    remove(index);
    share_storage(x, sum);
  }

  void reduce_in_place(int index) {
    const auto& reduction = *as<AllReduce>(*op(index).definition);
    const ValueId x = op(index).inputs[0], y = op(index).outputs[0];
    const int producer = sole_producer(x, index);
    if (producer == kNone || !reduction.aliases().empty()) return;
    if (!may_be_overwritten(x) || !unread(x, producer + 1, count(), index)) return;
    op(index).definition = std::make_shared<AllReduce>(reduction.in_place());
    make(index, y);
    share_storage(y, x);
  }
};

}  // namespace

void fuse(Program& program) {
  Fuser(program).run();
  fuse_rows(program);
}

}  // namespace annulus
