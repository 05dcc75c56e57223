#include "runtime/cuda/cudnn_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "tests/cudnn/tasks.h"

namespace annulus::testing {
namespace {

using Mask = CudnnGraphKey::Mask;
using Pairs = std::set<std::pair<std::int64_t, std::int64_t>>;

constexpr auto kForward = AttentionDirection::forward, kBackward = AttentionDirection::backward;
constexpr TaskSizes kSizes{.sequences = 2, .heads = 4, .kv_heads = 2, .head_dim = 64, .sequence = 64};

/// Pairs of local positions that cuDNN's graph computes.
Pairs pairs_of(const CudnnPlan& plan) {
  Pairs pairs;
  for (std::int64_t i = 0; plan.graph && i < plan.graph->queries; ++i) {
    for (std::int64_t j = 0; j < plan.graph->visible_keys(i); ++j)
      pairs.emplace(plan.query_begin + i, plan.key_begin + j);
  }
  return pairs;
}

Pairs pairs_of(const std::vector<AttentionBlock>& blocks) {
  Pairs pairs;
  for (const AttentionBlock& block : blocks) {
    for (std::int64_t i = 0; i < block.query_end - block.query_begin; ++i) {
      for (std::int64_t j = 0; j < block.visible_keys(i); ++j)
        pairs.emplace(block.query_begin + i, block.key_begin + j);
    }
  }
  return pairs;
}

/// What masks promise, beyond what is computed from them.
void expect_sound(const CudnnGraphKey& graph) {
  EXPECT_LE(graph.queries, graph.query_positions);
  EXPECT_LE(graph.keys, graph.key_positions);
  if (graph.mask == Mask::causal) {
    EXPECT_EQ(graph.queries, graph.keys);
  }
  if (graph.mask == Mask::bottom_right) {
    EXPECT_LT(graph.queries, graph.keys);
  }
}

AttentionTask plain_task(const std::vector<AttentionBlock>& blocks, std::int64_t positions = 64) {
  TaskSizes sizes = kSizes;
  sizes.sequence = positions;
  return ring_task(kForward, sizes, 1, 0, blocks);
}

AttentionBlock block(int query_begin, int query_end, int key_begin, int key_end) {
  return {.query_begin = query_begin, .query_end = query_end, .key_begin = key_begin, .key_end = key_end};
}
AttentionBlock causal(AttentionBlock of, int diagonal) {
  of.causal = true;
  of.diagonal = diagonal;
  return of;
}

class CudnnPlanTest : public ::testing::Test {
 protected:
  CudnnPlanTest()
      : seed_(std::random_device{}()), engine_(seed_), trace_(__FILE__, __LINE__, "seed " + std::to_string(seed_)) {}
  int integer(int from, int to) { return std::uniform_int_distribution<int>(from, to)(engine_); }

  /// Every task of one ring: its graph computes the pairs that positions allow, each once.
  void check_ring(RingLayout layout, int ring_size, std::int64_t sequence) {
    TaskSizes sizes = kSizes;
    sizes.sequence = sequence;
    for (int rank = 0; rank < ring_size; ++rank) {
      for (int step = 0; step < ring_size; ++step) {
        const int other = (rank - step + ring_size) % ring_size;
        const auto blocks = ring_blocks(layout, ring_size, rank, other, sequence);
        const auto queries = positions(layout, ring_size, rank, sequence),
                   keys = positions(layout, ring_size, other, sequence);
        Pairs expected;
        for (std::size_t i = 0; i < queries.size(); ++i) {
          for (std::size_t j = 0; j < keys.size(); ++j) {
            if (keys[j] <= queries[i]) expected.emplace(i, j);
          }
        }
        const CudnnPlan plan = plan_cudnn(ring_task(kForward, sizes, ring_size, step, blocks), kHopper);
        SCOPED_TRACE(std::string(name_of(layout)) + " of " + std::to_string(ring_size) + ", sequence " +
                     std::to_string(sequence) + ", rank " + std::to_string(rank) + ", step " + std::to_string(step));
        EXPECT_EQ(plan.refusal, "");
        EXPECT_EQ(pairs_of(plan), expected);
        if (!plan.graph) continue;
        expect_sound(*plan.graph);
        EXPECT_NE(plan.graph->mask, Mask::bottom_right);
        EXPECT_EQ(plan.graph->pairs(), static_cast<std::int64_t>(expected.size()) * sizes.sequences * sizes.heads);
      }
    }
  }

  std::uint64_t seed_;
  std::mt19937_64 engine_;
  ::testing::ScopedTrace trace_;
};

TEST_F(CudnnPlanTest, OneGraphHoldsThePairsOfAnyStepOfAnyRing) {
  for (const RingLayout layout : kLayouts) {
    for (int ring_size = 1; ring_size <= 8; ++ring_size) {
      const std::int64_t divisor = sequence_divisor(layout, ring_size);
      check_ring(layout, ring_size, divisor);
      check_ring(layout, ring_size, divisor * integer(2, 9));
    }
  }
}

TEST_F(CudnnPlanTest, BlocksAtRandomAreHeldExactlyOrRefused) {
  int held = 0, refused = 0;
  for (int round = 0; round < 3000; ++round) {
    std::vector<AttentionBlock> blocks;
    int key = integer(0, 3);
    const int rows = integer(1, 12), count = integer(1, 3), begin = integer(0, 3);
    for (int i = 0; i < count; ++i) {
      const int end = key + integer(1, 6);
      const AttentionBlock rectangle = block(begin, begin + rows, key, end);
      blocks.push_back(i + 1 < count || integer(0, 1) == 0 ? rectangle : causal(rectangle, integer(-4, 4)));
      key = end + (integer(0, 9) == 0 ? 1 : 0);
    }
    const CudnnPlan plan = plan_cudnn(plain_task(blocks), kHopper);
    if (!plan.refusal.empty()) {
      ++refused;
      continue;
    }
    ++held;
    EXPECT_EQ(pairs_of(plan), pairs_of(blocks));
    if (plan.graph) expect_sound(*plan.graph);
  }
  EXPECT_GT(held, 500);
  EXPECT_GT(refused, 100);
}

TEST_F(CudnnPlanTest, StripedBlocksLeaveTheFirstRowToUs) {
  const std::vector<AttentionBlock> blocks{causal(block(0, 64, 0, 64), -1)};
  const CudnnPlan plan = plan_cudnn(plain_task(blocks), kHopper);
  ASSERT_TRUE(plan.graph);
  EXPECT_EQ(plan.query_begin, 1);
  EXPECT_EQ(plan.key_begin, 0);
  EXPECT_EQ(plan.graph->queries, 63);
  EXPECT_EQ(plan.graph->keys, 63);
  EXPECT_EQ(plan.graph->mask, Mask::causal);
  const std::vector<AttentionBlock> nothing{causal(block(0, 1, 0, 1), -1)};
  EXPECT_FALSE(plan_cudnn(plain_task(nothing, 1), kHopper).graph);
}

TEST_F(CudnnPlanTest, KeysOfEarlierRanksMakeItBottomRight) {
  const std::vector<AttentionBlock> blocks{block(0, 16, 0, 32), causal(block(0, 16, 32, 48), 0)};
  const CudnnPlan plan = plan_cudnn(plain_task(blocks), kHopper);
  ASSERT_TRUE(plan.graph);
  EXPECT_EQ(plan.graph->mask, Mask::bottom_right);
  EXPECT_EQ(plan.graph->queries, 16);
  EXPECT_EQ(plan.graph->keys, 48);
}

TEST_F(CudnnPlanTest, RefusesWhatCudnnDoesNotDo) {
  const std::vector<AttentionBlock> blocks{causal(block(0, 64, 0, 64), 0)};
  const AttentionTask good = ring_task(kBackward, kSizes, 1, 0, blocks);
  EXPECT_EQ(plan_cudnn(good, kHopper).refusal, "");
  const auto expect_refused = [&](auto&& change, const std::string& why) {
    AttentionTask task = good;
    change(task);
    EXPECT_NE(plan_cudnn(task, kHopper).refusal.find(why), std::string::npos) << plan_cudnn(task, kHopper).refusal;
    EXPECT_FALSE(plan_cudnn(task, kHopper).graph);
  };
  expect_refused([](AttentionTask& task) { task.storage = DType::f32; }, "bf16 and f16");
  expect_refused([](AttentionTask& task) { task.storage = DType::f64; }, "bf16 and f16");
  expect_refused([](AttentionTask& task) { task.dropout_rate = 0.1; }, "dropout");
  expect_refused([](AttentionTask& task) { task.head_dim = 36; }, "heads of 36");
  expect_refused([](AttentionTask& task) { task.head_dim = 264; }, "heads of 264");
  expect_refused([](AttentionTask& task) { task.lse = DType::bf16; }, "log-sum-exp");
  expect_refused([](AttentionTask& task) { task.out = DType::f16; }, "out is of another type");
  expect_refused([](AttentionTask& task) { task.kv_grad = DType::f16; }, "dkv is of another type");
  expect_refused([](AttentionTask& task) { task.first = false, task.earlier = DType::bf16; }, "put together in f32");
  expect_refused([](AttentionTask& task) { task.direction = kForward, task.first = false, task.earlier = DType::bf16; },
                 "put together in f32");
  CudnnLimits ampere = kHopper;
  ampere.compute_capability = 80;
  EXPECT_EQ(plan_cudnn(good, ampere).refusal, "");
  AttentionTask wide = good;
  wide.head_dim = 192;
  EXPECT_EQ(plan_cudnn(wide, kHopper).refusal, "");
  EXPECT_NE(plan_cudnn(wide, ampere).refusal, "");
  ampere.compute_capability = 75;
  EXPECT_NE(plan_cudnn(good, ampere).refusal, "");
  const std::vector<AttentionBlock> pair{block(3, 4, 7, 8)};
  EXPECT_NE(plan_cudnn(ring_task(kBackward, kSizes, 1, 0, pair), kHopper).refusal, "");
  EXPECT_EQ(plan_cudnn(ring_task(kForward, kSizes, 1, 0, pair), kHopper).refusal, "");
}

/// 16 heads at S = 32768: 2 bytes a score are 32 GiB.
TEST_F(CudnnPlanTest, WorkspaceOfTheDeterministicBackwardIsLimited) {
  const TaskSizes sizes{.sequences = 1, .heads = 16, .kv_heads = 16, .head_dim = 128, .sequence = 32768};
  const std::vector<AttentionBlock> blocks{causal(block(0, 32768, 0, 32768), 0)};
  const AttentionTask task = ring_task(kBackward, sizes, 1, 0, blocks);
  CudnnLimits limits = kHopper;
  EXPECT_EQ(plan_cudnn(task, limits).refusal, "");
  limits.determinism = Determinism::bitwise;
  EXPECT_NE(plan_cudnn(task, limits).refusal.find("workspace"), std::string::npos);
  limits.workspace_bytes = (std::int64_t{32} << 30) + (std::int64_t{2} << 20);
  const CudnnPlan plan = plan_cudnn(task, limits);
  ASSERT_TRUE(plan.graph) << plan.refusal;
  EXPECT_EQ(estimated_workspace_bytes(*plan.graph), limits.workspace_bytes);
  limits.workspace_bytes -= 1;
  EXPECT_FALSE(plan_cudnn(task, limits).graph);
}

/// The device has f32 alone so far: of real ops, that is what is refused.
TEST_F(CudnnPlanTest, TasksOfOps) {
  const Attention composite({64, 2}, {}, {}, 0);
  const auto blocks = ring_blocks(RingLayout::zigzag, 2, 0, 0, 64);
  const std::vector<ValueType> inputs{
      {DType::f32, {64, 256}, {}}, {DType::f32, {64, 2, 128}, {}}, {DType::i32, {64, 2}, {}},  {DType::i32, {1}, {}},
      {DType::f32, {64, 256}, {}}, {DType::f32, {64, 4}, {}},      {DType::f32, {64, 256}, {}}};
  const AttentionStep step(composite, blocks, true);
  const AttentionTask forward =
      task_of(step, std::span(inputs).first(4), step.infer(MeshAxes{}, std::span(inputs).first(4)));
  EXPECT_EQ(forward.heads, 4);
  EXPECT_EQ(forward.kv_heads, 2);
  EXPECT_EQ(forward.queries, 32);
  EXPECT_EQ(forward.keys, 32);
  EXPECT_EQ(forward.lse, DType::f32);
  EXPECT_TRUE(forward.first);
  EXPECT_NE(plan_cudnn(forward, kHopper).refusal.find("bf16"), std::string::npos);
  const AttentionStepGrad grad(composite, blocks, true);
  const AttentionTask backward = task_of(grad, inputs, grad.infer(MeshAxes{}, inputs));
  EXPECT_EQ(backward.direction, kBackward);
  EXPECT_EQ(backward.kv_grad, DType::f32);
  EXPECT_NE(plan_cudnn(backward, kHopper).refusal.find("bf16"), std::string::npos);
}

}  // namespace
}  // namespace annulus::testing
