#pragma once

#include <cstdint>
#include <functional>

#include "runtime/core/communicator.h"

namespace annulus {

/// How closely sums must equal those of a serial loop in rank order.
enum class SumOrder { rank_order, any };

/// Where the buffers lie: in this rank's own memory, in memory that `allocate_shared` gave, or now here, now there.
enum class BufferMemory { own, shared, mixed };

struct SuiteOptions {
  std::uint64_t seed = 0;
  int batches = 20;
  int batch_size = 24;  ///< transfers outstanding at once
  std::int64_t largest_count = 3000;
  SumOrder order = SumOrder::rank_order;
  BufferMemory buffers = BufferMemory::own;
};

/// Every collective, in f32, f64 and i32, sum and max, in place and not, on the world and on groups split from it:
/// random batches are started together, tested in an order that differs between ranks, and compared with serial
/// references. Collective over `world`, with the same options on all ranks; throws std::runtime_error where a value is
/// wrong.
void check_collectives(Communicator& world, const SuiteOptions& options);

/// Members, their order, and data of groups split by odd colors and keys.
void check_splits(Communicator& world);

/// The counters' calls and bytes for one call of each kind.
void check_counters(Communicator& world);

/// Calls that must be refused before anything is sent.
void check_refusals(Communicator& world);

}  // namespace annulus
