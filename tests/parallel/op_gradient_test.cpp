// Every gradient rule against central differences in float64, recorded and run as a program; and the cost rules against
// what the kernels counted.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <set>

#include "parallel/ring_attention.h"
#include "runtime/ops/recorder.h"
#include "tests/parallel/op_runner.h"

namespace annulus::testing {
namespace {

constexpr double kStep = 1e-5, kTolerance = 1e-7;

/// Sum of `weights` times the elements of the first output.
double weighted(const RanksResult& result, const Numbers& weights) {
  const Numbers& values = result.outputs[0][0].values;
  double sum = 0;
  for (std::size_t i = 0; i < values.size(); ++i) sum += weights[i] * values[i];
  return sum;
}

/// The gradient of `loss` by the elements of input `which`, by central differences.
Numbers differences(std::vector<OpInput> inputs, std::size_t which,
                    const std::function<double(const std::vector<OpInput>&)>& loss) {
  Numbers gradient;
  for (double& x : inputs[which].values) {
    const double kept = x;
    x = kept + kStep;
    const double above = loss(inputs);
    x = kept - kStep;
    gradient.push_back((above - loss(inputs)) / (2 * kStep));
    x = kept;
  }
  return gradient;
}

class OpGradient : public ::testing::Test {
 protected:
  OpGradient() : seed_(std::random_device{}()), draw_(seed_, 1) { std::cout << "seed " << seed_ << "\n"; }

  /// False where the kind has no gradient because it is one.
  bool check(const OpCase& op) {
    const Record forward = record_op(op, RingLayout::zigzag);
    OneRank plain_op(op.inputs, forward);
    const RanksResult plain = plain_op.run(op.inputs);
    OpTable table{draw_};
    const OpInput dy = table.numbers(plain.types[0].shape);
    std::vector<OpInput> inputs = op.inputs;
    inputs.push_back(dy);
    std::vector<int> given;
    RanksResult backward;
    try {
      backward = run_on_one_rank(inputs, [&](Program& program, std::vector<ValueId> ids) {
        return record_gradient(op, program, std::move(ids), given);
      });
    } catch (const InternalError&) {
      return false;
    }
    for (std::size_t i = 0; i < given.size(); ++i) {
      const auto which = static_cast<std::size_t>(given[i]);
      const Numbers expected = differences(op.inputs, which, [&](const std::vector<OpInput>& moved) {
        return weighted(plain_op.run(moved), dy.values);
      });
      expect_close(backward.outputs[i][0].values, expected, kTolerance,
                   fmt::format("gradient of input {}, {}", which, op.inputs[which].shape.str()));
    }
    for (std::size_t i = 0; i < op.inputs.size(); ++i) {
      const bool has = std::find(given.begin(), given.end(), static_cast<int>(i)) != given.end();
      EXPECT_EQ(has, op.inputs[i].differentiable) << "input " << i;
    }
    return true;
  }

  /// Records the op and its gradient; `given` becomes the inputs that have one.
  static std::vector<ValueId> record_gradient(const OpCase& op, Program& program, std::vector<ValueId> ids,
                                              std::vector<int>& given) {
    const ValueId dy = ids.back();
    ids.pop_back();
    std::vector<ValueType> types;
    for (ValueId id : ids) types.push_back(program.type(id));
    program.emit(op.make(program.mesh(), types), ids);
    const Op recorded = program.op(0);
    std::vector<ValueId> gradients(ids.size(), kNoValue), found;
    GradientContext context(program, recorded, dy, gradients);
    recorded.definition->gradient(context);
    given.clear();
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      if (gradients[i] == kNoValue) continue;
      given.push_back(static_cast<int>(i));
      // A gradient that is dy itself would be read twice and written by nobody: an op makes a copy of it.
      const bool passed_on = gradients[i] == dy;
      found.push_back(passed_on ? program.emit_one(std::make_shared<Add>(), {dy, zero(program, dy)}) : gradients[i]);
    }
    expand(op, program);
    return found;
  }

  static ValueId zero(Program& program, ValueId like) {
    const ValueId known = program.find_leaf("zero");
    if (known != kNoValue) return known;
    const ValueType& type = program.type(like);
    return program.leaf("zero", Role::state, type.dtype, type.shape);
  }

  static void expand(const OpCase& op, Program& program) {
    if (program.op(0).definition->kind() == OpKind::attention)
      expand_ring_attention(program, RingLayout::zigzag, op.inputs[0].shape[0] / op.sequences);
  }

  std::uint64_t seed_;
  Draw draw_;
};

TEST_F(OpGradient, EveryKindAgainstDifferences) {
  std::set<std::string> differentiated, behind;
  const auto try_kind = [&](OpKind kind) {
    for (int round = 0; round < 8; ++round)
      for (const OpCase& op : cases_of(kind, {draw_})) {
        SCOPED_TRACE(fmt::format("{} {}", name_of(kind), op.label));
        (check(op) ? differentiated : behind).insert(std::string(name_of(kind)));
      }
  };
  const auto cross_entropy = [](OpKind kind) {  // its gradient is that of the whole chain: see below
    return kind == OpKind::row_max || kind == OpKind::row_sum_exp || kind == OpKind::row_target || kind == OpKind::nll;
  };
  for (const OpKind kind : kComputeAndCompositeKinds)
    if (!cross_entropy(kind) && kind != OpKind::slice) try_kind(kind);
  EXPECT_EQ(differentiated, (std::set<std::string>{"add", "add_bias", "attention", "cast", "dropout", "embed", "gelu",
                                                   "layer_norm", "matmul"}));
  EXPECT_EQ(behind,
            (std::set<std::string>{"accumulate", "adamw", "attention_grad", "attention_step", "attention_step_grad",
                                   "clip", "column_sum", "embed_grad", "gelu_grad", "layer_norm_grad",
                                   "matmul",  // that which ends with the slope of an activation
                                   "nll_grad", "residual_norm", "row_softmax", "sum_squares", "zero"}));
}

TEST_F(OpGradient, CrossEntropyAsAWhole) {
  for (int round = 0; round < 10; ++round) {
    OpTable table{draw_};
    const OpTable::Logits sizes = table.logits();
    std::vector<OpInput> inputs{table.numbers({sizes.rows, sizes.columns}),
                                table.ids({sizes.rows}, sizes.vocabulary - 1),
                                table.between({sizes.rows}, 0, 1, DType::f64)};
    const auto record_loss = [&](Program& program, const std::vector<ValueId>& ids) {
      Recorder recorder(program);
      const ValueId max = recorder.row_max(ids[0], sizes.vocabulary);
      const ValueId sum_exp = recorder.row_sum_exp(ids[0], max, sizes.vocabulary);
      const ValueId target = recorder.row_target(ids[0], ids[1], sizes.vocabulary);
      return recorder.nll(ids[0], sum_exp, max, target, ids[1], ids[2], sizes.vocabulary);
    };
    OneRank chain(inputs, [&](Program& program, const std::vector<ValueId>& ids) {
      return std::vector{record_loss(program, ids)};
    });
    const Numbers expected = differences(
        inputs, 0, [&](const std::vector<OpInput>& moved) { return chain.run(moved).outputs[0][0].values[0]; });
    const RanksResult got = run_on_one_rank(inputs, [&](Program& program, const std::vector<ValueId>& ids) {
      record_loss(program, ids);
      const Op op = program.op(program.op_count() - 1);
      std::vector<ValueId> gradients(op.inputs.size(), kNoValue);
      GradientContext context(program, op, kNoValue, gradients);
      op.definition->gradient(context);
      return std::vector{gradients[0]};
    });
    expect_close(got.outputs[0][0].values, expected, kTolerance, "logits");
  }
}

TEST_F(OpGradient, CostRulesEqualWhatKernelsCount) {
  const auto check_kind = [&](OpKind kind) {
    for (int round = 0; round < 3; ++round)
      for (const OpCase& op : cases_of(kind, {draw_})) {
        SCOPED_TRACE(fmt::format("{} {}", name_of(kind), op.label));
        Work work;
        const RanksResult got = run_on_one_rank(op.inputs, [&](Program& program, const std::vector<ValueId>& ids) {
          const auto outputs = record_op(op, RingLayout::zigzag)(program, ids);
          std::vector<ValueType> in, out;
          for (ValueId id : ids) in.push_back(program.type(id));
          for (ValueId id : outputs) out.push_back(program.type(id));
          work = program.op(0).definition->work(in, out);
          return outputs;
        });
        EXPECT_EQ(work.attended_pairs, got.counters.attended_pairs);
        if (work.attended_pairs == 0)
          EXPECT_EQ(work.flops, got.counters.product_flops);
        else
          EXPECT_GT(work.flops, 0);
      }
  };
  for (const OpKind kind : kComputeKinds) check_kind(kind);
}

}  // namespace
}  // namespace annulus::testing
