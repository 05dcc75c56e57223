#pragma once

#include <algorithm>

#include "runtime/cuda/pack.h"

namespace annulus {

/// Sums over all elements, in f64 whatever they are stored as: first by blocks whose number depends on the count alone,
/// then over the blocks in their order.
constexpr std::int64_t total_blocks(std::int64_t count) { return std::clamp<std::int64_t>(count / 4096, 1, 1024); }

/// Every block the elements of its stride: `terms.add<N>(i, sums)` adds those of N elements to its kSums sums. `sums`
/// is [kSums, blocks].
template <class Terms>
struct TotalBody {
  Terms terms;
  double* sums;
  std::int64_t count, blocks;
  bool packed;

  template <class Block>
  ANNULUS_BODY void operator()(Block& block) const {
    double mine[Terms::kSums] = {};
    const std::int64_t packs = packed ? count / Terms::kPack : 0, threads = blocks * block.threads();
    const std::int64_t first = block.index() * block.threads() + block.thread();
    for (std::int64_t pack = first; pack < packs; pack += threads) {
      terms.template add<Terms::kPack>(pack * Terms::kPack, mine);
    }
    for (std::int64_t i = packs * Terms::kPack + first; i < count; i += threads) terms.template add<1>(i, mine);
    ANNULUS_UNROLL
    for (int k = 0; k < Terms::kSums; ++k) {
      const double sum = reduce_block(block, mine[k], 0.0, AddValues());
      if (block.thread() == 0) sums[k * blocks + block.index()] = sum;
    }
  }
};

/// Numbers as they are.
struct PlainTerms {
  static constexpr int kSums = 1, kPack = 2;
  const double* x;
  template <int N>
  ANNULUS_BODY void add(std::int64_t i, double* sums) const {
    sums[0] += sum_of(load_pack<N>(x + i));
  }
};

/// Scratch memory of `total`, in bytes.
template <class Terms>
constexpr std::int64_t total_bytes(std::int64_t count) {
  return Terms::kSums * total_blocks(count) * static_cast<std::int64_t>(sizeof(double));
}

/// sums[k] = the k-th sum of `terms` over [0, count).
template <class Terms, class Launcher>
void total(const Launcher& launcher, const Terms& terms, std::int64_t count, bool packed, std::byte* workspace,
           double* sums) {
  const std::int64_t blocks = total_blocks(count);
  double* const partial = blocks == 1 ? sums : reinterpret_cast<double*>(workspace);
  launcher({blocks, reduction_bytes<double>()}, TotalBody<Terms>{terms, partial, count, blocks, packed});
  for (int k = 0; blocks > 1 && k < Terms::kSums; ++k) {
    const double* of_blocks = partial + k * blocks;
    launcher({1, reduction_bytes<double>()},
             TotalBody<PlainTerms>{{of_blocks}, sums + k, blocks, 1, aligned<PlainTerms::kPack>(of_blocks)});
  }
}

}  // namespace annulus
