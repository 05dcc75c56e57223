#include "runtime/program/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "runtime/core/error.h"

namespace annulus {
namespace {

/// True where `later` must stay behind `earlier`.
bool depends(const Op& later, const Op& earlier, const std::vector<int>& storage) {
  for (ValueId input : later.inputs)
    if (std::find(earlier.outputs.begin(), earlier.outputs.end(), input) != earlier.outputs.end()) return true;
  for (const Alias& alias : later.definition->aliases()) {  // it overwrites: readers of that storage go first
    const int overwritten = storage[static_cast<std::size_t>(later.inputs[static_cast<std::size_t>(alias.input)])];
    for (ValueId read : earlier.inputs)
      if (storage[static_cast<std::size_t>(read)] == overwritten) return true;
  }
  return false;
}

}  // namespace

void hoist_collectives(Program& program) {
  const std::vector<int> storage = storage_of_values(program);
  std::vector<Op> order;
  for (Op& op : program.take_ops()) {
    const auto call = op.definition->collective();
    std::size_t at = order.size();
    if (call && call->kind != CollectiveKind::shift) {
      while (at > 0) {
        const Op& before = order[at - 1];
        const auto other = before.definition->collective();
        const bool same_lane = other && other->axes == call->axes;
        if (same_lane || before.segment != op.segment || depends(op, before, storage)) break;
        --at;
      }
    }
    order.insert(order.begin() + static_cast<std::ptrdiff_t>(at), std::move(op));
  }
  for (Op& op : order) program.restore(std::move(op));
}

std::vector<int> storage_of_values(const Program& program) {
  std::vector<int> storage(program.values().size());
  std::iota(storage.begin(), storage.end(), 0);
  for (const Op& op : program.ops())  // list order: an input's storage is final before its alias is made
    for (const Alias& alias : op.definition->aliases())
      storage[static_cast<std::size_t>(op.outputs[static_cast<std::size_t>(alias.output)])] =
          storage[static_cast<std::size_t>(op.inputs[static_cast<std::size_t>(alias.input)])];
  return storage;
}

Schedule make_schedule(const Program& program) {
  Schedule schedule;
  for (const Op& op : program.ops()) {
    const auto call = op.definition->collective();
    if (!call) {
      schedule.lanes.push_back(0);
      continue;
    }
    const auto found = std::find(schedule.lane_axes.begin(), schedule.lane_axes.end(), call->axes);
    schedule.lanes.push_back(1 + static_cast<int>(found - schedule.lane_axes.begin()));
    if (found == schedule.lane_axes.end()) schedule.lane_axes.push_back(call->axes);
  }
  const int lane_count = schedule.lane_count();
  const std::vector<int> storage = storage_of_values(program);
  struct Use {
    int writer = -1;             // last op that wrote the storage
    std::vector<int> accessors;  // collectives that read or wrote it since
  };
  std::vector<Use> uses(program.values().size());
  std::vector<int> known(static_cast<std::size_t>(lane_count), -1), last(static_cast<std::size_t>(lane_count), -1);
  for (int i = 0; i < program.op_count(); ++i) {
    const Op& op = program.op(i);
    const int lane = schedule.lanes[static_cast<std::size_t>(i)];
    if (i > 0 && program.op(i - 1).segment != op.segment) known = last;  // drained
    std::set<int> waits;
    const auto wait_for = [&](int other) {
      if (other < 0) return;
      const auto other_lane = static_cast<std::size_t>(schedule.lanes[static_cast<std::size_t>(other)]);
      if (other_lane == 0 || static_cast<int>(other_lane) == lane || known[other_lane] >= other) return;
      waits.insert(other);
    };
    for (ValueId input : op.inputs)
      wait_for(uses[static_cast<std::size_t>(storage[static_cast<std::size_t>(input)])].writer);
    for (ValueId output : op.outputs)
      for (int accessor : uses[static_cast<std::size_t>(storage[static_cast<std::size_t>(output)])].accessors)
        wait_for(accessor);
    for (int other : waits) {
      int& complete = known[static_cast<std::size_t>(schedule.lanes[static_cast<std::size_t>(other)])];
      complete = std::max(complete, other);
    }
    schedule.complete.insert(schedule.complete.end(), known.begin(), known.end());
    schedule.waits.emplace_back(waits.begin(), waits.end());
    last[static_cast<std::size_t>(lane)] = i;
    for (ValueId output : op.outputs) {
      Use& use = uses[static_cast<std::size_t>(storage[static_cast<std::size_t>(output)])];
      use.writer = i;
      use.accessors.clear();
      if (lane != 0) use.accessors.push_back(i);
    }
    if (lane != 0)
      for (ValueId input : op.inputs)
        uses[static_cast<std::size_t>(storage[static_cast<std::size_t>(input)])].accessors.push_back(i);
  }
  return schedule;
}

void check_aliases(const Program& program) {
  std::set<ValueId> dead;
  int segment = 0;
  for (const Op& op : program.ops()) {
    if (op.segment != segment)  // a leaf stands for its storage: later segments read what earlier ones left
      std::erase_if(dead, [&](ValueId id) { return program.value(id).role != Role::activation; });
    segment = op.segment;
    for (ValueId input : op.inputs)
      if (dead.contains(input))
        throw InternalError(fmt::format("{}: {} reads {}, which an earlier op overwrites in place", op.scope,
                                        op.definition->name(), program.value(input).name));
    if (op.definition->is_view()) continue;
    for (const Alias& alias : op.definition->aliases()) dead.insert(op.inputs[static_cast<std::size_t>(alias.input)]);
  }
}

}  // namespace annulus
