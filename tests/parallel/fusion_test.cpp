// Fused programs give what the programs do from which they were made, and hold what can be fused.
#include "runtime/ops/fusion.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <random>
#include <set>

#include "tests/parallel/op_runner.h"

namespace annulus::testing {
namespace {

constexpr std::int64_t kSize = 5;

/// Random products, sums, biases, activations, dropout, norms and gradients on square matrices, some in place, some
/// kept, in one or two segments; the last op adds to an input in place.
class RandomSums {
 public:
  explicit RandomSums(std::uint64_t seed) : seed_(seed) {}

  std::vector<OpInput> inputs() const {
    Draw draw(seed_, 1);
    OpTable table{draw};
    return {table.numbers({kSize, kSize}),
            table.numbers({kSize, kSize}),
            table.numbers({kSize}),
            table.ids({kSize}, kSize - 1),
            table.numbers({kSize, kSize}),
            table.ids({kSize, 2}, 50),
            table.step()};
  }

  std::vector<ValueId> record(Program& program, const std::vector<ValueId>& ids) {
    engine_.seed(seed_);
    matrices_ = {ids[0], ids[1]};
    statistics_ = kNoValue;
    const int segments = below(2) + 1;
    for (int segment = 0; segment < segments; ++segment) {
      program.begin_segment("segment" + std::to_string(segment), 1);
      for (int i = below(15) + 5; i > 0; --i) matrices_.insert(matrix(program, ids));
    }
    std::vector<ValueId> outputs;
    ValueId last = kNoValue;
    for (ValueId id : matrices_) {
      if (program.value(id).role != Role::activation) continue;
      if (below(3) == 0) outputs.push_back(id);
      last = id;
    }
    outputs.push_back(one<Accumulate>(program, {ids[4], last}));
    for (ValueId id : outputs) program.keep(id);
    return outputs;
  }

 private:
  int below(int count) { return std::uniform_int_distribution<int>(0, count - 1)(engine_); }
  /// The newest values are chosen most: what is made is often read once, and at once.
  ValueId any() {
    const int count = static_cast<int>(matrices_.size());
    return *std::prev(matrices_.end(), 1 + std::min({below(count), below(count), below(count)}));
  }
  template <class Kind, class... Arguments>
  static ValueId one(Program& program, std::vector<ValueId> inputs, Arguments... arguments) {
    return program.emit_one(std::make_shared<Kind>(arguments...), std::move(inputs));
  }

  ValueId matrix(Program& program, const std::vector<ValueId>& ids) {
    switch (below(11)) {
      case 0:
        return one<AddBias>(program, {any(), ids[2]});
      case 1:
        return one<EmbedGrad>(program, {ids[3], ids[0], any()}, 0);
      case 2:
      case 3:
        return one<Add>(program, {any(), any()});
      case 4: {
        const ValueId sum = any(), share = any();
        if (sum == share || program.value(sum).role != Role::activation) return sum;
        matrices_.erase(sum);
        return one<Accumulate>(program, {sum, share});
      }
      case 5:
        return one<Gelu>(program, {any()}, static_cast<Activation>(below(2)));
      case 6:
        return one<GeluGrad>(program, {any(), any()}, static_cast<Activation>(below(2)));
      case 7:
        return one<Dropout>(program, {any(), ids[5], ids[6]}, DropoutMask{0.3, seed_, 1}, 0);
      case 8: {
        const auto normed = program.emit(std::make_shared<LayerNorm>(0.05), {any(), ids[2], ids[2]});
        statistics_ = normed[1];
        return normed[0];
      }
      case 9:
        if (statistics_ == kNoValue) return any();
        return program.emit(std::make_shared<LayerNormGrad>(), {any(), ids[2], statistics_, any()}).front();
      default:
        return one<Matmul>(program, {any(), any()}, static_cast<Matmul::Form>(below(3)));
    }
  }

  std::uint64_t seed_;
  std::mt19937_64 engine_;
  std::set<ValueId> matrices_;
  ValueId statistics_ = kNoValue;  ///< of any norm
};

TEST(Fusion, RandomProgramsGiveTheSame) {
  const std::uint64_t seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  int recorded = 0, left = 0;
  for (int round = 0; round < 400; ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    RandomSums sums(seed + static_cast<std::uint64_t>(round));
    const std::vector<OpInput> inputs = sums.inputs();
    const auto result = [&](bool fused) {
      return run_on_one_rank(inputs, [&](Program& program, const std::vector<ValueId>& ids) {
        const std::vector<ValueId> outputs = sums.record(program, ids);
        if (fused) {
          recorded += program.op_count();
          fuse(program);
          left += program.op_count();
        }
        return outputs;
      });
    };
    const RanksResult plain = result(false), fused = result(true);
    for (std::size_t i = 0; i < plain.outputs.size(); ++i)
      expect_close(fused.outputs[i][0].values, plain.outputs[i][0].values, 1e-11, "output " + std::to_string(i));
  }
  std::cout << recorded << " ops recorded, " << left << " left\n";
  EXPECT_LT(left, recorded);
}

/// A program of one rank with leaves of every sort, to record and to look at.
class FusionShapes : public ::testing::Test {
 protected:
  ValueId leaf(const char* name, Role role, const Shape& shape = {kSize, kSize}, DType dtype = DType::f64) {
    return program_.leaf(name, role, dtype, shape);
  }
  template <class Kind, class... Arguments>
  ValueId one(std::vector<ValueId> inputs, Arguments... arguments) {
    return program_.emit_one(std::make_shared<Kind>(arguments...), std::move(inputs));
  }
  /// The ops, by name and attributes, after fusing.
  std::vector<std::string> fused() {
    fuse(program_);
    check_aliases(program_);
    std::vector<std::string> ops;
    for (const Op& op : program_.ops()) {
      const std::string attributes = op.definition->attributes();
      ops.push_back(std::string(op.definition->name()) + (attributes.empty() ? "" : " " + attributes));
    }
    return ops;
  }
  using Ops = std::vector<std::string>;

  Program program_{mesh_of({1, 1, 1, 1})};
  const ValueId x_ = leaf("x", Role::input), w_ = leaf("w", Role::parameter);
};

TEST_F(FusionShapes, BiasAndResidualJoinTheProduct) {
  const ValueId bias = leaf("bias", Role::parameter, {kSize});
  const ValueId stream = one<Gelu>({x_}, Activation::gelu_erf);
  const ValueId y = one<Matmul>({x_, w_}, Matmul::Form::nn);
  const ValueId sum = one<Add>({stream, one<AddBias>({y, bias})});
  program_.keep(one<Add>({sum, stream}));
  EXPECT_EQ(fused(), (Ops{"gelu erf", "matmul nn + bias + addend", "add"}));
}

TEST_F(FusionShapes, WhatNobodyReadsAfterwardsIsAddedToInPlace) {
  const ValueId first = one<Matmul>({x_, w_}, Matmul::Form::nt), second = one<Matmul>({w_, x_}, Matmul::Form::nt);
  program_.keep(one<Add>({second, first}));
  EXPECT_EQ(fused(), (Ops{"matmul nt", "matmul nt in place"}));
}

TEST_F(FusionShapes, TiedGradientsGatherInTheAccumulator) {
  const ValueId accumulator = leaf("sum", Role::state), ids = leaf("ids", Role::input, {kSize}, DType::i32);
  for (const char* segment : {"body", "last_body"}) {
    program_.begin_segment(segment, 1);
    const ValueId head = one<Matmul>({x_, w_}, Matmul::Form::tn), embedding = one<EmbedGrad>({ids, w_, x_}, 0);
    program_.keep(one<Accumulate>({accumulator, one<Add>({head, embedding})}));
  }
  EXPECT_EQ(fused(), (Ops{"matmul tn in place", "embed_grad in place", "matmul tn in place", "embed_grad in place"}));
}

TEST_F(FusionShapes, WhatIsReadTwiceOrKeptStays) {
  const ValueId y = one<Matmul>({x_, w_}, Matmul::Form::nn), z = one<Matmul>({x_, x_}, Matmul::Form::nn);
  program_.keep(one<Add>({y, x_}));
  program_.keep(one<Add>({y, w_}));
  program_.keep(z);
  program_.keep(one<Add>({z, x_}));
  EXPECT_EQ(fused(), (Ops{"matmul nn", "matmul nn", "add", "add", "add"}));
}

TEST_F(FusionShapes, AnActivationLeavesItsInputToWhomReadsIt) {
  const ValueId bias = leaf("bias", Role::parameter, {kSize}), dy = leaf("dy", Role::input);
  const ValueId x = one<AddBias>({one<Matmul>({x_, w_}, Matmul::Form::nn), bias});
  const ValueId y = one<Gelu>({x}, Activation::gelu_tanh);
  program_.set_phase(Phase::backward);
  const ValueId dx = one<GeluGrad>({x, one<Matmul>({dy, w_}, Matmul::Form::nt)}, Activation::gelu_tanh);
  program_.keep(one<Matmul>({y, dx}, Matmul::Form::tn));
  EXPECT_EQ(fused(), (Ops{"matmul nn + bias, gelu and input tanh", "matmul nt, gelu slope tanh", "matmul tn"}));
}

TEST_F(FusionShapes, AnInputThatNobodyElseReadsIsNotStored) {
  const ValueId x = one<Matmul>({x_, w_}, Matmul::Form::nn);
  program_.keep(one<Add>({one<Gelu>({x}, Activation::gelu_erf), x_}));
  EXPECT_EQ(fused(), (Ops{"matmul nn, gelu erf", "add"}));
}

TEST_F(FusionShapes, AnActivationIsNotMovedToAnotherPhase) {
  const ValueId x = one<Matmul>({x_, w_}, Matmul::Form::nn);
  program_.keep(one<Gelu>({x}, Activation::gelu_erf));
  program_.set_phase(Phase::backward);
  program_.keep(one<Gelu>({x}, Activation::gelu_erf));
  const ValueId y = one<Matmul>({x_, x_}, Matmul::Form::nn);
  program_.set_phase(Phase::update);
  program_.keep(one<Gelu>({y}, Activation::gelu_erf));
  EXPECT_EQ(fused(), (Ops{"matmul nn, gelu and input erf", "gelu erf", "matmul nn", "gelu erf"}));
}

TEST(Fusion, ASumOverRanksStaysBetweenProductAndActivation) {
  Program program(mesh_of({1, 1, 2, 1}));
  Placements columns{}, rows{};
  columns[2] = Placement::sharded(1), rows[2] = Placement::sharded(0);
  const ValueId x = program.leaf("x", Role::input, DType::f64, {4, 4}, columns);
  const ValueId w = program.leaf("w", Role::parameter, DType::f64, {4, 4}, rows);
  const ValueId share = program.emit_one(std::make_shared<Matmul>(Matmul::Form::nn), {x, w});
  EXPECT_THROW(program.emit_one(std::make_shared<Gelu>(Activation::gelu_erf), {share}), PlacementError);
  EXPECT_THROW(
      program.emit_one(
          std::make_shared<Matmul>(Matmul::Form::nn, ProductEpilogue{.finish = ProductEpilogue::Finish::gelu}), {x, w}),
      PlacementError);
}

TEST_F(FusionShapes, ParametersAreNotOverwritten) {
  program_.keep(one<Add>({one<Matmul>({x_, w_}, Matmul::Form::nn), w_}));
  EXPECT_EQ(fused(), (Ops{"matmul nn + addend"}));
}

TEST(FusionOfReductions, LieInTheMemoryOfOperandsThatNobodyElseReads) {
  Program program(mesh_of({1, 1, 2, 1}));
  const auto places = [](Placement of_tp) {
    Placements all{};
    all[mesh_axis::tk] = of_tp;
    return all;
  };
  const Shape shape{2 * kSize, 2 * kSize};
  const ValueId x = program.leaf("x", Role::input, DType::f64, shape, places(Placement::sharded(1)));
  const ValueId w = program.leaf("w", Role::parameter, DType::f64, shape, places(Placement::sharded(0)));
  const auto product = [&] { return program.emit_one(std::make_shared<Matmul>(Matmul::Form::nn), {x, w}); };
  const auto sum = [&](ValueId of) {
    return program.emit_one(std::make_shared<AllReduce>(AxisSet(mesh_axis::tk), Reduction::sum), {of});
  };
  const ValueId read_twice = product(), kept = product();
  for (ValueId id : {sum(product()), sum(read_twice),
                     sum(program.emit_one(std::make_shared<Add>(), {read_twice, kept})), sum(kept), kept})
    program.keep(id);
  fuse(program);
  check_aliases(program);
  std::vector<std::size_t> aliases;
  for (const Op& op : program.ops())
    if (op.definition->collective()) aliases.push_back(op.definition->aliases().size());
  EXPECT_EQ(aliases, (std::vector<std::size_t>{1, 0, 1, 0}));
}

TEST_F(FusionShapes, WhatJoinsTheStreamIsNormedWithIt) {
  const ValueId vector = leaf("vector", Role::parameter, {kSize}), step = leaf("step", Role::input, {1}, DType::i32);
  const ValueId row_ids = leaf("row_ids", Role::input, {kSize, 2}, DType::i32);
  ValueId stream = x_;
  for (const bool drops : {true, false}) {
    ValueId joins = one<AddBias>({one<Gelu>({stream}, Activation::gelu_erf), vector});
    if (drops) joins = one<Dropout>({joins, row_ids, step}, DropoutMask{0.5, 1, 2}, 0);
    stream = one<Add>({stream, joins});
    const auto normed = program_.emit(std::make_shared<LayerNorm>(0.5), {stream, vector, vector});
    program_.keep(normed[0]);
    program_.keep(normed[1]);
  }
  program_.keep(stream);
  EXPECT_EQ(fused(), (Ops{"gelu erf", "residual_norm epsilon 0.5, bias, dropout rate 0.5", "gelu erf",
                          "residual_norm epsilon 0.5, bias"}));
}

TEST_F(FusionShapes, WhatIsOverwrittenMeanwhileIsNotReadLater) {
  const ValueId vector = leaf("vector", Role::parameter, {kSize});
  const ValueId x = one<Gelu>({x_}, Activation::gelu_erf), biased = one<AddBias>({x, vector});
  program_.keep(one<Accumulate>({x, w_}));
  const ValueId stream = one<Add>({w_, biased});
  program_.keep(program_.emit(std::make_shared<LayerNorm>(0.5), {stream, vector, vector})[0]);
  EXPECT_EQ(fused(), (Ops{"gelu erf", "add_bias", "accumulate", "residual_norm epsilon 0.5"}));
}

TEST_F(FusionShapes, GradientsOfNormsJoinTheStreams) {
  const ValueId gamma = leaf("gamma", Role::parameter, {kSize});
  const ValueId statistics = leaf("statistics", Role::input, {kSize, 2}, DType::f64);
  const ValueId stream = one<Gelu>({x_}, Activation::gelu_erf);
  const auto grads = program_.emit(std::make_shared<LayerNormGrad>(), {x_, gamma, statistics, w_});
  const ValueId sum = one<Add>({stream, grads[0]});
  const auto more = program_.emit(std::make_shared<LayerNormGrad>(), {x_, gamma, statistics, w_});
  program_.keep(one<Add>({sum, more[0]}));
  const auto last = program_.emit(std::make_shared<LayerNormGrad>(), {x_, gamma, statistics, w_});
  program_.keep(one<Add>({x_, last[0]}));
  EXPECT_EQ(fused(),
            (Ops{"gelu erf", "layer_norm_grad in place", "layer_norm_grad in place", "layer_norm_grad + addend"}));
}

TEST_F(FusionShapes, LogitsAreReadOnce) {
  const ValueId targets = leaf("targets", Role::input, {kSize}, DType::i32);
  const VocabularyShard shard{0, kSize - 1};
  const ValueId logits = one<Gelu>({x_}, Activation::gelu_erf), largest = one<RowMax>({logits}, shard);
  program_.keep(one<RowSumExp>({logits, largest}, shard));
  program_.keep(one<RowTarget>({logits, targets}, shard));
  program_.keep(one<RowSumExp>({w_, one<RowMax>({w_}, shard)}, shard));
  EXPECT_EQ(fused(), (Ops{"gelu erf", "row_softmax", "row_max", "row_sum_exp"}));
}

}  // namespace
}  // namespace annulus::testing
