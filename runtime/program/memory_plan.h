#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "runtime/program/schedule.h"

namespace annulus {

/// Bytes of scratch that a device's kernel wants for an op, known while planning.
using WorkspaceQuery = std::function<std::int64_t(const OpDefinition&, OpDefinition::Types, OpDefinition::Types)>;

/// A piece of the arena: values that alias one another, or that must lie one after another.
struct Buffer {
  std::vector<ValueId> values;
  std::int64_t offset = 0;
  std::int64_t bytes = 0;
  bool persistent = false;
  int first = -1;  ///< first op that writes it (-1: it exists before the step)
  int last = -1;   ///< last op in the list that reads or writes it
};

/// Where everything lies: one arena, known to the byte before anything is allocated. Persistent buffers (parameters,
/// states, inputs) come first, then activations, which share memory where their lives do not overlap, then workspace.
struct MemoryPlan {
  static constexpr std::int64_t kAlignment = 64;

  std::vector<std::int64_t> offsets;  ///< of each value in the arena; -1 for a value that no op touches
  std::vector<Buffer> buffers;
  std::int64_t persistent_bytes = 0;
  std::int64_t activation_bytes = 0;
  std::int64_t workspace_offset = 0;
  std::int64_t workspace_bytes = 0;
  std::int64_t arena_bytes = 0;
  /// Buffers whose bytes nobody needs any more when the op starts, and that nobody has taken over yet: a test may
  /// poison them.
  std::vector<std::vector<int>> freed_before;
};

/// A buffer's memory is free for an op that is ordered, by the schedule's waits, behind all of its readers and writers.
MemoryPlan plan_memory(const Program& program, const Schedule& schedule, const WorkspaceQuery& workspace);

/// Bytes by what holds them.
struct MemoryItem {
  std::string name;
  std::int64_t bytes = 0;
};

/// Bytes alive when op `index` starts, by who holds them: (scope or role, bytes), largest first.
std::vector<MemoryItem> alive_at(const Program& program, const MemoryPlan& plan, int index);
/// The op before which most bytes of activations are alive.
int fullest_moment(const Program& program, const MemoryPlan& plan);

}  // namespace annulus
