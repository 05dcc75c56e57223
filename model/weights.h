#pragma once

#include <cstddef>
#include <vector>

#include "model/parameters.h"
#include "parallel/sharded_optimizer.h"
#include "runtime/execute/executor.h"

namespace annulus {

/// Weights as files know them: of a weight that is a half the f32 master, where the program has one.

/// A weight's type with the element type of its master.
ValueType master_type(const Program& program, const Parameter& parameter);

/// Of this rank's shard, row-major, the elements whose master it holds: all, unless the optimizer divides them. `mesh`
/// is that of any rank.
OwnedRange master_range(const Program& program, const MeshAxes& mesh, const Parameter& parameter);

/// Elements [first, first + count) of this rank's shard become `values`, of the master's type: the weight, rounded, and
/// its master.
void write_weights(Executor& executor, const Parameter& parameter, const std::byte* values, std::int64_t first,
                   std::int64_t count);

/// The elements of `master_range`, of the master's type.
std::vector<std::byte> read_weights(const Executor& executor, const Parameter& parameter);

}  // namespace annulus
