#pragma once

#include <algorithm>
#include <vector>

#include "runtime/cuda/tensor_list.h"

namespace annulus {

/// Sums over all elements of lists of tensors, in f64 whatever they are stored as: first by blocks whose number depends
/// on the sizes alone, then over the blocks in their order.
template <class List>
std::int64_t total_blocks(const List& list) {
  return std::clamp<std::int64_t>(list.chunks(), 1, 1024);
}
template <class List>
std::int64_t total_blocks(const std::vector<List>& lists) {
  std::int64_t blocks = 0;
  for (const List& list : lists) blocks += total_blocks(list);
  return blocks;
}

/// Every block its chunks: `terms.add<N>(i, sums)` adds those of N elements to its kSums sums, which are `stride`
/// apart, by block.
template <class Terms, std::size_t most>
struct TotalBody {
  TensorList<Terms, most> list;
  double* sums;
  std::int64_t blocks, stride;

  template <class Block>
  ANNULUS_BODY void operator()(Block& block) const {
    double mine[Terms::kSums] = {};
    list.walk_chunks(block, blocks,
                     [&]<int N>(const Terms& terms, Width<N>, std::int64_t i) { terms.template add<N>(i, mine); });
    ANNULUS_UNROLL
    for (int k = 0; k < Terms::kSums; ++k) {
      const double sum = reduce_block(block, mine[k], 0.0, AddValues());
      if (block.thread() == 0) sums[k * stride + block.index()] = sum;
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
template <class Terms, std::size_t most>
std::int64_t total_bytes(const std::vector<TensorList<Terms, most>>& lists) {
  return Terms::kSums * total_blocks(lists) * static_cast<std::int64_t>(sizeof(double));
}

/// sums[k] = the k-th sum of the terms of all tensors.
template <class Terms, std::size_t most, class Launcher>
void total(const Launcher& launcher, const std::vector<TensorList<Terms, most>>& lists, std::byte* workspace,
           double* sums) {
  const std::int64_t all = total_blocks(lists);
  double* const partial = all == 1 ? sums : reinterpret_cast<double*>(workspace);
  std::int64_t begun = 0;
  for (const auto& list : lists) {
    const std::int64_t blocks = total_blocks(list);
    launcher({blocks, reduction_bytes<double>()}, TotalBody<Terms, most>{list, partial + begun, blocks, all});
    begun += blocks;
  }
  for (int k = 0; all > 1 && k < Terms::kSums; ++k) {
    TensorList<PlainTerms, 1> of_blocks;
    const double* first = partial + k * all;
    of_blocks.append({first}, all, aligned<PlainTerms::kPack>(first));
    launcher({1, reduction_bytes<double>()}, TotalBody<PlainTerms, 1>{of_blocks, sums + k, 1, 1});
  }
}

}  // namespace annulus
