#pragma once

#include <map>
#include <set>
#include <vector>

#include "runtime/ops/optimizer.h"
#include "runtime/program/program.h"

namespace annulus {

/// Whether the optimizer's state, and its work, are divided over the ranks that hold the same parameters.
enum class OptimizerSharding : std::uint8_t {
  none,
  zero1,  ///< ZeRO stage 1 (Rajbhandari et al., arXiv 1910.02054): over dp x cp
};

/// Parameters that lie one after another in memory, and so do their gradients: as many elements as the ranks of `axes`
/// divide. Each of these ranks owns an equal part, wherever one parameter ends and the next begins: it alone has the
/// part's summed gradient and moments, and updates it. `axes` are those over which the gradients are summed: dp x cp,
/// and tp for parameters that tp replicates and whose gradients it makes in shares.
struct OptimizerBucket {
  AxisSet axes;
  bool decays = false;  ///< weight decay applies
  std::vector<ValueId> parameters;
  ValueId padding = kNoValue;   ///< zeros behind the parameters, where their elements do not divide
  ValueId gradient = kNoValue;  ///< this rank's part: [elements, 1]
  ValueId first_moment = kNoValue, second_moment = kNoValue;
  ValueId master = kNoValue;  ///< of weights that are halves: this rank's part, f32
};

/// Sums and scatters every gradient over the axes over which it is partial, in buckets of about `bucket_bytes`, each
/// recorded behind the op that completes its last gradient. Only the last bucket of a class is padded. Weight decay is
/// for the parameters in `decayed`.
std::vector<OptimizerBucket> scatter_gradients(Program& program, const std::map<ValueId, ValueId>& gradients,
                                               const std::set<ValueId>& decayed, std::int64_t bucket_bytes);

/// Updates this rank's part of a bucket where it lies, and gathers the parts of the others. `options` says what weight
/// decay is where it applies; summary and hyper are AdamW's clip and hyper.
void update_bucket(Program& program, OptimizerBucket& bucket, AdamW::Options options, ValueId summary, ValueId hyper);

/// Of a parameter's elements on this rank, row-major, those in this rank's part of the bucket, and where in the part
/// they begin.
struct OwnedRange {
  std::int64_t first = 0, count = 0, in_part = 0;
};
OwnedRange owned_range(const Program& program, const OptimizerBucket& bucket, ValueId parameter);
/// Where a parameter's elements begin in the bucket.
std::int64_t place_in_bucket(const Program& program, const OptimizerBucket& bucket, ValueId parameter);
/// Of `count` elements that begin at `begin` in a bucket, those in part `index` of `part` elements.
OwnedRange owned_range(std::int64_t begin, std::int64_t count, std::int64_t part, int index);

}  // namespace annulus
