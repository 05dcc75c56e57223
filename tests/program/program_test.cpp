// The one door: what a program accepts, and what it says of what it refuses.
#include "runtime/program/program.h"

#include <gtest/gtest.h>

#include "runtime/ops/recorder.h"
#include "runtime/program/dump.h"
#include "tests/program/random_program.h"

namespace annulus::testing {
namespace {

Placements on_a(Placement place) { return {place}; }

template <class Error, class Action>
std::string message_of(const Action& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

void expect_names(const std::string& message, std::initializer_list<const char*> parts) {
  for (const char* part : parts) EXPECT_NE(message.find(part), std::string::npos) << part << " is not in: " << message;
}

TEST(Program, ALeafIsDeclaredOnce) {
  Program program(square_mesh());
  const ValueId x = program.leaf("x", Role::parameter, DType::f32, {4, 6}, on_a(Placement::sharded(1)));
  EXPECT_EQ(program.leaf("x", Role::parameter, DType::f32, {4, 6}, on_a(Placement::sharded(1))), x);
  EXPECT_EQ(program.type(x).shape, Shape({4, 3}));
  EXPECT_EQ(program.find_leaf("x"), x);
  EXPECT_EQ(program.find_leaf("y"), kNoValue);
  expect_names(message_of<ShapeError>([&] {
                 program.leaf("x", Role::parameter, DType::f32, {4, 6});
               }),
               {"x", "f32[4, 3] a=sharded(1)", "f32[4, 6]"});
}

TEST(Program, WhatDoesNotDivideIsRefused) {
  Program program(square_mesh());
  expect_names(message_of<ShapeError>([&] {
                 program.leaf("w", Role::parameter, DType::f32, {4, 7}, on_a(Placement::sharded(1)));
               }),
               {"w", "dim 1", "[4, 7]", "2 ranks over a", "7 % 2 = 1"});
  const Placements twice{Placement::sharded(0), Placement::sharded(0)};
  EXPECT_THROW(program.leaf("v", Role::parameter, DType::f32, {6}, twice), ShapeError);
}

TEST(Program, ARefusalNamesScopeOpAxisAndPlacements) {
  Program program(square_mesh());
  const ValueId x = program.leaf("x", Role::input, DType::f32, {4, 6}, on_a(Placement::partial_sum()));
  const ValueId y = program.leaf("y", Role::input, DType::f32, {4, 6});
  program.set_scope("layers.3.mlp");
  expect_names(message_of<PlacementError>([&] {
                 program.emit(std::make_shared<Add>(), {x, y});
               }),
               {"layers.3.mlp", "add", "axis a", "x is partial(sum)", "y is replicated"});
  expect_names(message_of<PlacementError>([&] { program.emit(std::make_shared<Gelu>(Activation::gelu_erf), {x}); }),
               {"layers.3.mlp", "gelu", "axis a", "partial(sum)"});
  EXPECT_EQ(program.op_count(), 0);
}

TEST(Program, AShapeErrorNamesScopeAndOp) {
  Program program(square_mesh());
  const ValueId x = program.leaf("x", Role::input, DType::f32, {4, 6});
  const ValueId w = program.leaf("w", Role::input, DType::f32, {5, 6});
  program.set_scope("head");
  expect_names(message_of<ShapeError>([&] {
                 program.emit(std::make_shared<Matmul>(Matmul::Form::nn), {x, w});
               }),
               {"head", "matmul", "[4, 6]", "[5, 6]"});
}

TEST(Program, AnAxisOfOneRankConstrainsNothing) {
  Program program(MeshAxes{{{"a", 1, 0}}, {}});
  const ValueId x = program.leaf("x", Role::input, DType::f32, {5}, on_a(Placement::sharded(0)));
  EXPECT_TRUE(program.type(x).places[0].is_replicated());
  Recorder recorder(program);
  EXPECT_EQ(recorder.all_reduce(x, AxisSet(0)), x);
  EXPECT_EQ(recorder.slice(x, AxisSet(0), 0), x);
  EXPECT_EQ(program.op_count(), 0);
}

TEST(Program, ReplacingAnOpKeepsTheTypeOfItsOutput) {
  Program program(square_mesh());
  const ValueId x = program.leaf("x", Role::input, DType::f32, {4, 6});
  const ValueId part = program.leaf("part", Role::input, DType::f32, {4, 6}, on_a(Placement::sharded(0)));
  const auto gelu = std::make_shared<Gelu>(Activation::gelu_erf);
  const ValueId y = program.emit_one(gelu, {x});
  EXPECT_EQ(program.emit(gelu, {x}, {y}), std::vector{y});
  EXPECT_EQ(program.value(y).producer, 1);
  EXPECT_THROW(program.emit(gelu, {part}, {y}), PlacementError);
}

TEST(Program, SegmentsAndScopesArePartOfAnOp) {
  Program program(square_mesh());
  const ValueId x = program.leaf("x", Role::input, DType::f32, {4});
  program.begin_segment("body", 3);
  {
    const Scope outer(program, "layers.0");
    const Scope inner(program, "mlp");
    program.emit(std::make_shared<Add>(), {x, x});
  }
  program.begin_segment("tail", 1);
  program.set_phase(Phase::update);
  program.emit(std::make_shared<Add>(), {x, x});
  ASSERT_EQ(program.segments().size(), 2u);
  EXPECT_EQ(program.segments()[0].repeat, 3);
  EXPECT_EQ(program.op(0).scope, "layers.0.mlp");
  EXPECT_EQ(program.op(1).scope, "");
  EXPECT_EQ(program.op(1).segment, 1);
  EXPECT_EQ(program.op(1).phase, Phase::update);
}

TEST(Program, TheDumpShowsEveryOp) {
  Program program(square_mesh());
  const ValueId x = program.leaf("x", Role::input, DType::f32, {4, 6}, on_a(Placement::partial_sum()));
  program.set_scope("layers.0.attention");
  const ValueId y = program.emit_one(std::make_shared<AllReduce>(AxisSet(0), Reduction::sum), {x});
  program.emit_one(std::make_shared<Gelu>(Activation::gelu_tanh), {y});
  expect_names(dump(program), {"leaf x: f32[4, 6] a=partial(sum)", "segment step x 1", "# layers.0.attention [forward]",
                               "%1: f32[4, 6] = all_reduce<a>(x) {sum}", "%2: f32[4, 6] = gelu(%1) {tanh}"});
}

std::uint64_t hash_of(int rank, const std::function<void(Program&, ValueId)>& record) {
  Program program(square_mesh(rank));
  record(program, program.leaf("x", Role::input, DType::f32, {4, 8}));
  return communication_hash(program);
}

TEST(Program, CommunicationIsHashedInOrder) {
  const auto shift = [](Program& program, ValueId x, int axis) {
    return program.emit_one(std::make_shared<Shift>(AxisSet(axis), 1), {x});
  };
  const auto a_b = [&](Program& program, ValueId x) { shift(program, shift(program, x, 0), 1); };
  const auto b_a = [&](Program& program, ValueId x) { shift(program, shift(program, x, 1), 0); };
  const auto sliced = [&](Program& program, ValueId x) {  // compute ops differ from rank to rank
    shift(program, Recorder(program).slice(x, AxisSet(1), 0), 0);
  };
  const auto repeated = [&](Program& program, ValueId x) {
    program.begin_segment("body", 2);
    a_b(program, x);
  };
  for (int rank = 1; rank < 4; ++rank) {
    EXPECT_EQ(hash_of(rank, a_b), hash_of(0, a_b));
    EXPECT_EQ(hash_of(rank, sliced), hash_of(0, sliced));
  }
  EXPECT_EQ((std::set{hash_of(0, a_b), hash_of(0, b_a), hash_of(0, sliced), hash_of(0, repeated)}.size()), 4u);
}

}  // namespace
}  // namespace annulus::testing
