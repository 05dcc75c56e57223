#pragma once

#include <functional>
#include <string>

#include "parallel/mesh.h"
#include "runtime/ops/recorder.h"

namespace annulus {

/// How activations lie between the linears of a block.
enum class SequenceParallel : std::uint8_t {
  off,  ///< replicated over tp
  on,   ///< rows sharded over tp (Korthikanti et al., arXiv 2205.05198)
};

/// The conversions of Megatron-style tensor parallelism over tp, forward only: what the backward needs follows.
class TensorParallel {
 public:
  TensorParallel(Recorder& recorder, SequenceParallel sequence_parallel)
      : recorder_(recorder), sequence_parallel_(sequence_parallel) {}

  /// In front of a column-parallel linear: forward all-gather of rows under sequence parallelism, backward
  /// reduce-scatter; without it forward nothing, backward all-reduce (Megatron's f).
  ValueId enter(ValueId x);
  /// Behind a row-parallel linear or a sharded embedding: forward reduce-scatter, backward all-gather; without sequence
  /// parallelism forward all-reduce (Megatron's g), backward nothing.
  ValueId leave(ValueId x);
  /// Ids of rows, for what runs between `leave` and `enter`: this rank's rows under sequence parallelism.
  ValueId rows(ValueId ids);

 private:
  Recorder& recorder_;
  SequenceParallel sequence_parallel_;
};

/// Marks `dim` as sharded over `axes`.
Placements sharded_over(AxisSet axes, int dim);

/// Rewrites the program so that what was gathered inside of the layers for the forward is gathered again in the
/// backward, not kept: stored inputs stay sharded (memory against one more all-gather per linear pair).
void gather_again(Program& program);

}  // namespace annulus
