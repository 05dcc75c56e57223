// No two values that may be alive at once share a byte: random programs with collectives, checked by brute force.
#include "runtime/program/memory_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <map>

#include "tests/program/random_program.h"

namespace annulus::testing {
namespace {

constexpr int kPrograms = 200;

std::int64_t workspace_of(const OpDefinition& definition, OpDefinition::Types, OpDefinition::Types) {
  return definition.kind() == OpKind::add ? 100 : 10;
}

/// A plan with everything that the checks need.
struct Planned {
  explicit Planned(std::uint64_t seed) : random(seed), program(random.program()) {
    hoist_collectives(program);
    schedule = make_schedule(program);
    plan = plan_memory(program, schedule, workspace_of);
    before = complete_when_started(program, schedule);
    for (std::size_t b = 0; b < plan.buffers.size(); ++b)
      for (ValueId id : plan.buffers[b].values) buffer_of[id] = static_cast<int>(b);
    touches.resize(plan.buffers.size());
    for (int i = 0; i < program.op_count(); ++i)
      for (const auto* list : {&program.op(i).inputs, &program.op(i).outputs})
        for (ValueId id : *list) touches[static_cast<std::size_t>(buffer_of.at(id))].insert(i);
    for (ValueId id : program.kept()) kept.insert(buffer_of.at(id));
  }

  const Buffer& buffer(int b) const { return plan.buffers[static_cast<std::size_t>(b)]; }
  bool overlap(int a, int b) const {
    return buffer(a).offset < buffer(b).offset + buffer(b).bytes &&
           buffer(b).offset < buffer(a).offset + buffer(a).bytes;
  }
  /// Every op that touches `b` is complete when `op` starts.
  bool over(int b, int op) const {
    const auto& done = before[static_cast<std::size_t>(op)];
    const auto& all = touches[static_cast<std::size_t>(b)];
    return !kept.contains(b) && std::all_of(all.begin(), all.end(), [&](int i) { return done.contains(i); });
  }

  RandomProgram random;
  Program& program;
  Schedule schedule;
  MemoryPlan plan;
  std::vector<std::set<int>> before, touches;
  std::map<ValueId, int> buffer_of;
  std::set<int> kept;
};

class MemoryPlanTest : public ::testing::Test {
 protected:
  template <class Check>
  void on_random_programs(const Check& check) {
    const std::uint64_t seed = std::random_device{}();
    std::cout << "seed " << seed << "\n";
    for (std::uint64_t round = 0; round < kPrograms; ++round) {
      SCOPED_TRACE("program " + std::to_string(seed + round));
      check(Planned(seed + round));
    }
  }
};

TEST_F(MemoryPlanTest, WhatMayBeAliveTogetherIsApart) {
  int shared = 0;
  on_random_programs([&](const Planned& p) {
    const int count = static_cast<int>(p.plan.buffers.size());
    for (int a = 0; a < count; ++a)
      for (int b = a + 1; b < count; ++b) {
        if (!p.overlap(a, b)) continue;
        ++shared;
        EXPECT_FALSE(p.buffer(a).persistent || p.buffer(b).persistent);
        const auto& of_a = p.touches[static_cast<std::size_t>(a)];
        const auto& of_b = p.touches[static_cast<std::size_t>(b)];
        const bool a_first = std::all_of(of_b.begin(), of_b.end(), [&](int op) { return p.over(a, op); });
        const bool b_first = std::all_of(of_a.begin(), of_a.end(), [&](int op) { return p.over(b, op); });
        EXPECT_TRUE(a_first || b_first) << "buffers " << a << " and " << b;
      }
  });
  EXPECT_GT(shared, kPrograms);  // memory is used again
}

TEST_F(MemoryPlanTest, EveryValueLiesInItsBuffer) {
  on_random_programs([](const Planned& p) {
    const std::vector<int> storage = storage_of_values(p.program);
    for (const auto& [id, b] : p.buffer_of) {
      const std::int64_t offset = p.plan.offsets[static_cast<std::size_t>(id)], bytes = p.program.type(id).bytes();
      EXPECT_GE(offset, p.buffer(b).offset);
      EXPECT_LE(offset + bytes, p.buffer(b).offset + p.buffer(b).bytes);
      EXPECT_EQ(p.buffer(b).offset % MemoryPlan::kAlignment, 0);
      for (const auto& [other, other_b] : p.buffer_of) {
        if (other_b != b) continue;
        const std::int64_t at = p.plan.offsets[static_cast<std::size_t>(other)];
        const bool same = storage[static_cast<std::size_t>(id)] == storage[static_cast<std::size_t>(other)];
        EXPECT_TRUE(same ? at == offset : at + p.program.type(other).bytes() <= offset || offset + bytes <= at);
      }
    }
  });
}

TEST_F(MemoryPlanTest, BucketsAreContiguous) {
  int buckets = 0;
  on_random_programs([&](const Planned& p) {
    for (const Op& op : p.program.ops()) {
      if (op.definition->contiguous_inputs() < 2) continue;
      ++buckets;
      for (std::size_t i = 1; i < op.definition->contiguous_inputs(); ++i)
        EXPECT_EQ(
            p.plan.offsets[static_cast<std::size_t>(op.inputs[i])],
            p.plan.offsets[static_cast<std::size_t>(op.inputs[i - 1])] + p.program.type(op.inputs[i - 1]).bytes());
    }
  });
  EXPECT_GT(buckets, 10);
}

TEST_F(MemoryPlanTest, PeakIsBetweenWhatIsAliveAndTheSum) {
  double planned = 0, alive_total = 0;
  on_random_programs([&](const Planned& p) {
    std::int64_t sum = 0, peak = 0, persistent = 0, workspace = 0;
    for (const Buffer& buffer : p.plan.buffers) (buffer.persistent ? persistent : sum) += (buffer.bytes + 63) / 64 * 64;
    for (int i = 0; i < p.program.op_count(); ++i) {
      std::int64_t alive = 0;
      for (const Buffer& buffer : p.plan.buffers)
        if (!buffer.persistent && buffer.first <= i && i <= buffer.last) alive += buffer.bytes;
      peak = std::max(peak, alive);
      if (!p.program.op(i).definition->collective())
        workspace = std::max(workspace, workspace_of(*p.program.op(i).definition, {}, {}));
    }
    EXPECT_GE(p.plan.activation_bytes, peak);
    EXPECT_LE(p.plan.activation_bytes, sum);
    EXPECT_EQ(p.plan.persistent_bytes, persistent);
    EXPECT_EQ(p.plan.workspace_bytes, workspace);
    EXPECT_EQ(p.plan.workspace_offset, persistent + p.plan.activation_bytes);
    EXPECT_GE(p.plan.arena_bytes, p.plan.workspace_offset + workspace);
    planned += static_cast<double>(p.plan.activation_bytes);
    alive_total += static_cast<double>(peak);
  });
  std::cout << "planned over alive: " << planned / alive_total << "\n";
}

TEST_F(MemoryPlanTest, FreedBytesAreNobodys) {
  int freed = 0;
  on_random_programs([&](const Planned& p) {
    for (int i = 0; i < p.program.op_count(); ++i)
      for (int b : p.plan.freed_before[static_cast<std::size_t>(i)]) {
        ++freed;
        EXPECT_TRUE(p.over(b, i)) << "buffer " << b << " before op " << i;
        for (int other = 0; other < static_cast<int>(p.plan.buffers.size()); ++other) {
          if (other == b || !p.overlap(b, other) || p.buffer(other).first >= i) continue;
          EXPECT_TRUE(p.over(other, i)) << "buffer " << other << " took over buffer " << b << " before op " << i;
        }
      }
  });
  EXPECT_GT(freed, kPrograms);
}

TEST_F(MemoryPlanTest, AliveAtNamesWhoHoldsWhat) {
  Program program(square_mesh());
  const ValueId x = program.leaf("x", Role::input, DType::f32, {16});
  program.set_scope("first");
  const ValueId a = program.emit_one(std::make_shared<Add>(), {x, x});
  program.set_scope("second");
  const ValueId b = program.emit_one(std::make_shared<Gelu>(Activation::gelu_erf), {a});
  program.emit_one(std::make_shared<Add>(), {a, b});
  const MemoryPlan plan = plan_memory(program, make_schedule(program), workspace_of);
  const auto items = alive_at(program, plan, 2);
  ASSERT_EQ(items.size(), 2u);
  EXPECT_EQ(items[0].bytes, 64);
  EXPECT_EQ(items[0].name, "first add");
  EXPECT_EQ(items[1].name, "second gelu");
  EXPECT_TRUE(alive_at(program, plan, 0).empty());
}

TEST_F(MemoryPlanTest, AnActivationMayNotLeaveASegmentThatRepeats) {
  Program program(square_mesh());
  const ValueId x = program.leaf("x", Role::input, DType::f32, {16});
  program.begin_segment("body", 2);
  const ValueId a = program.emit_one(std::make_shared<Add>(), {x, x});
  program.begin_segment("tail", 1);
  program.emit_one(std::make_shared<Add>(), {a, x});
  EXPECT_THROW(plan_memory(program, make_schedule(program), workspace_of), InternalError);
}

}  // namespace
}  // namespace annulus::testing
