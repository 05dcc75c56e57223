// Lanes and waits order every pair of ops that touch the same storage; hoisting changes when collectives start, not
// what anything computes. Random programs, checked by brute force.
#include "runtime/program/schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <map>

#include "runtime/core/random.h"
#include "tests/program/random_program.h"

namespace annulus::testing {
namespace {

constexpr int kPrograms = 200;

std::uint64_t fresh_seed() {
  const std::uint64_t seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  return seed;
}

std::set<int> storages(const std::vector<ValueId>& values, const std::vector<int>& storage) {
  std::set<int> all;
  for (ValueId id : values) all.insert(storage[static_cast<std::size_t>(id)]);
  return all;
}

bool meet(const std::set<int>& a, const std::set<int>& b) {
  return std::any_of(a.begin(), a.end(), [&](int x) { return b.contains(x); });
}

TEST(Schedule, OrdersEveryConflict) {
  const std::uint64_t seed = fresh_seed();
  int conflicts = 0, waits = 0;
  for (int round = 0; round < kPrograms; ++round) {
    SCOPED_TRACE("program " + std::to_string(seed + static_cast<std::uint64_t>(round)));
    RandomProgram random(seed + static_cast<std::uint64_t>(round));
    Program& program = random.program();
    if (round % 2 == 1) hoist_collectives(program);
    const Schedule schedule = make_schedule(program);
    const auto before = complete_when_started(program, schedule);
    const std::vector<int> storage = storage_of_values(program);
    for (int j = 0; j < program.op_count(); ++j) {
      waits += static_cast<int>(schedule.waits[static_cast<std::size_t>(j)].size());
      const auto read = storages(program.op(j).inputs, storage), written = storages(program.op(j).outputs, storage);
      for (int i = 0; i < j; ++i) {
        const auto was_read = storages(program.op(i).inputs, storage),
                   was_written = storages(program.op(i).outputs, storage);
        if (!meet(read, was_written) && !meet(written, was_read) && !meet(written, was_written)) continue;
        ++conflicts;
        EXPECT_TRUE(before[static_cast<std::size_t>(j)].contains(i)) << "op " << j << " may overtake op " << i;
      }
    }
  }
  EXPECT_GT(conflicts, kPrograms);
  EXPECT_GT(waits, kPrograms);
}

// `complete` claims no more than what brute force finds.
TEST(Schedule, KnowsWhatIsComplete) {
  const std::uint64_t seed = fresh_seed();
  for (int round = 0; round < kPrograms; ++round) {
    RandomProgram random(seed + static_cast<std::uint64_t>(round));
    const Program& program = random.program();
    const Schedule schedule = make_schedule(program);
    const auto before = complete_when_started(program, schedule);
    for (int i = 0; i < program.op_count(); ++i)
      for (int lane = 1; lane < schedule.lane_count(); ++lane) {
        const int complete = schedule.complete_before(i, lane);
        EXPECT_TRUE(complete < 0 || before[static_cast<std::size_t>(i)].contains(complete));
      }
  }
}

TEST(Schedule, OneLaneForEachSetOfAxes) {
  Program program(square_mesh());
  const ValueId x = program.leaf("x", Role::input, DType::f32, {4});
  const AxisSet both = AxisSet(0) | AxisSet(1);
  for (AxisSet axes : {AxisSet(0), both, AxisSet(0), AxisSet(1)})
    program.emit_one(std::make_shared<Shift>(axes, 1), {x});
  program.emit_one(std::make_shared<Gelu>(Activation::gelu_erf), {x});
  const Schedule schedule = make_schedule(program);
  EXPECT_EQ(schedule.lane_axes, (std::vector<AxisSet>{AxisSet(0), both, AxisSet(1)}));
  EXPECT_EQ(schedule.lanes, (std::vector<int>{1, 2, 1, 3, 0}));
  for (const auto& waits : schedule.waits) EXPECT_TRUE(waits.empty());
}

TEST(Schedule, WaitsOnceForEachTransfer) {
  Program program(square_mesh());
  const ValueId x = program.leaf("x", Role::input, DType::f32, {4});
  const auto gelu = [&](ValueId v) { return program.emit_one(std::make_shared<Gelu>(Activation::gelu_erf), {v}); };
  const ValueId first = program.emit_one(std::make_shared<Shift>(AxisSet(0), 1), {x});   // op 0
  const ValueId second = program.emit_one(std::make_shared<Shift>(AxisSet(0), 1), {x});  // op 1
  gelu(second);                                                                          // op 2
  gelu(first);   // op 3: complete already, since its lane is first in first out
  gelu(second);  // op 4
  const Schedule schedule = make_schedule(program);
  EXPECT_EQ(schedule.waits, (std::vector<std::vector<int>>{{}, {}, {1}, {}, {}}));
}

/// What each op computes, as a hash of itself and of what its inputs' memory holds when it runs.
std::multiset<std::uint64_t> meaning(const Program& program) {
  const std::vector<int> storage = storage_of_values(program);
  std::map<int, std::uint64_t> memory;
  std::multiset<std::uint64_t> results;
  for (const Op& op : program.ops()) {
    std::string text = std::string(op.definition->name()) + op.definition->attributes();
    if (const auto call = op.definition->collective()) text += program.mesh().label(call->axes);
    for (ValueId id : op.inputs) {
      const int where = storage[static_cast<std::size_t>(id)];
      const auto held = memory.find(where);
      text += " " + (held == memory.end() ? program.value(id).name : std::to_string(held->second));
    }
    for (std::size_t i = 0; i < op.outputs.size(); ++i)
      memory[storage[static_cast<std::size_t>(op.outputs[i])]] = stream_id(text + "#" + std::to_string(i));
    results.insert(stream_id(text));
  }
  return results;
}

std::vector<const OpDefinition*> of_lane(const Program& program, std::optional<AxisSet> axes) {
  std::vector<const OpDefinition*> ops;
  for (const Op& op : program.ops()) {
    const auto call = op.definition->collective();
    if (call ? axes == call->axes : !axes) ops.push_back(op.definition.get());
  }
  return ops;
}

TEST(Schedule, HoistingKeepsMeaningAndOrderOfLanes) {
  const std::uint64_t seed = fresh_seed();
  int moved = 0;
  for (int round = 0; round < kPrograms; ++round) {
    SCOPED_TRACE("program " + std::to_string(seed + static_cast<std::uint64_t>(round)));
    RandomProgram random(seed + static_cast<std::uint64_t>(round));
    Program& program = random.program();
    const Program plain = program;
    hoist_collectives(program);
    EXPECT_EQ(meaning(program), meaning(plain));
    check_aliases(program);
    const AxisSet both = AxisSet(0) | AxisSet(1);
    for (const std::optional<AxisSet>& axes : {std::optional<AxisSet>(), {AxisSet(0)}, {AxisSet(1)}, {both}})
      EXPECT_EQ(of_lane(program, axes), of_lane(plain, axes));
    for (int i = 0; i < program.op_count(); ++i) {
      moved += program.op(i).definition != plain.op(i).definition;
      for (ValueId output : program.op(i).outputs) EXPECT_EQ(program.value(output).producer, i);
    }
  }
  EXPECT_GT(moved, 0);
}

TEST(Schedule, ReadingWhatWasOverwrittenIsABug) {
  Program program(square_mesh());
  const ValueId x = program.leaf("x", Role::input, DType::f32, {4});
  const ValueId sum = program.emit_one(std::make_shared<Add>(), {x, x});
  program.emit_one(std::make_shared<Accumulate>(), {sum, x});
  check_aliases(program);
  program.emit_one(std::make_shared<Gelu>(Activation::gelu_erf), {sum});
  EXPECT_THROW(check_aliases(program), InternalError);
}

}  // namespace
}  // namespace annulus::testing
