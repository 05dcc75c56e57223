#include "parallel/ring_attention.h"

#include "parallel/mesh.h"
#include "runtime/ops/op_table.h"
#include "runtime/program/rewrite.h"

namespace annulus {
namespace {

class Ring {
 public:
  Ring(Program& program, RingLayout layout, std::int64_t sequence_length)
      : program_(program),
        layout_(layout),
        sequence_length_(sequence_length),
        size_(program.mesh()[mesh_axis::cp].size),
        rank_(program.mesh()[mesh_axis::cp].coordinate) {}

  void forward(const Op& op, const Attention& attention) {
    ValueId kv = op.inputs[1];
    ValueId out = kNoValue, lse = kNoValue;
    for (int step = 0; step < size_; ++step) {
      const ValueId next = step + 1 < size_ ? hop(kv) : kNoValue;  // in flight while this block computes
      std::vector<ValueId> inputs{op.inputs[0], kv, op.inputs[2], op.inputs[3]};
      if (step > 0) inputs.insert(inputs.end(), {out, lse});
      const bool last = step + 1 == size_;
      const auto results =
          program_.emit(std::make_shared<AttentionStep>(attention, blocks(step), step == 0, result_of(op, step)),
                        std::move(inputs), last ? op.outputs : std::vector<ValueId>{});
      out = results[0];
      lse = results[1];
      kv = next;
    }
  }

  void backward(const Op& op, const Attention& attention) {
    ValueId kv = op.inputs[1];
    ValueId dq = kNoValue, home = kNoValue, travelling = kNoValue;
    for (int step = 0; step < size_; ++step) {
      const ValueId next = step + 1 < size_ ? hop(kv) : kNoValue;
      std::vector<ValueId> inputs = op.inputs;
      inputs[1] = kv;
      if (step > 0) inputs.push_back(dq);
      std::vector<ValueId> outputs{kNoValue, kNoValue};
      if (step + 1 == size_) outputs[0] = op.outputs[0];
      if (size_ == 1) outputs[1] = op.outputs[1];
      const auto results =
          program_.emit(std::make_shared<AttentionStepGrad>(attention, blocks(step), step == 0, result_of(op, step)),
                        std::move(inputs), outputs);
      dq = results[0];
      if (step == 0)
        home = results[1];
      else
        travelling = hop(step == 1 ? results[1] : add_to(travelling, results[1]));
      kv = next;
    }
    if (size_ > 1) finish(home, travelling, op.outputs[1]);
  }

 private:
  ValueId hop(ValueId value) { return program_.emit_one(std::make_shared<Shift>(AxisSet(mesh_axis::cp), 1), {value}); }

  ValueId add_to(ValueId sum, ValueId share, ValueId output = kNoValue) {
    return program_.emit(std::make_shared<Accumulate>(), {sum, share}, {output}).front();
  }

  /// The sum of both, as `output`: shares of halves travel and are summed wide.
  void finish(ValueId home, ValueId travelling, ValueId output) {
    const DType dtype = program_.type(output).dtype;
    if (!is_half(dtype)) {
      add_to(home, travelling, output);
      return;
    }
    program_.emit(std::make_shared<Cast>(dtype), {add_to(home, travelling)}, {output});
  }

  StepResult result_of(const Op& op, int step) const {
    const bool rounds = step + 1 == size_ && is_half(program_.type(op.inputs[0]).dtype);
    return rounds ? StepResult::rounded : StepResult::running;
  }

  std::vector<AttentionBlock> blocks(int step) const {
    return ring_blocks(layout_, size_, rank_, (rank_ - step + size_) % size_, sequence_length_);
  }

  Program& program_;
  RingLayout layout_;
  std::int64_t sequence_length_;
  int size_, rank_;
};

}  // namespace

void expand_ring_attention(Program& program, RingLayout layout, std::int64_t sequence_length) {
  check_ring_layout(layout, program.mesh()[mesh_axis::cp].size, sequence_length);
  Ring ring(program, layout, sequence_length);
  lower(program, [&](Program&, const Op& op) {
    if (const auto* attention = as<Attention>(*op.definition)) return ring.forward(op, *attention), true;
    if (const auto* gradient = as<AttentionGrad>(*op.definition)) return ring.backward(op, gradient->forward()), true;
    return false;
  });
}

}  // namespace annulus
