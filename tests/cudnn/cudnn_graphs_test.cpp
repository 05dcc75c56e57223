#include <gtest/gtest.h>

#ifdef ANNULUS_CUDA
#include <fstream>
#include <iterator>
#include <map>

#include "runtime/cuda/cudnn_attention.h"
#include "tests/cudnn/tasks.h"

namespace annulus::testing {
namespace {

constexpr AttentionDirection kDirections[] = {AttentionDirection::forward, AttentionDirection::backward};
constexpr DType kStorages[] = {DType::bf16, DType::f16};
constexpr int kSm = 90;

/// cuDNN's answers for an H200, of which there need be none here: nothing is run.
CudnnAttention described(const CudnnOptions& options = {}) {
  std::ifstream file(ANNULUS_DEVICE_PROPERTIES);
  const std::string properties{std::istreambuf_iterator<char>(file), {}};
  return CudnnAttention(properties, kSm, options);
}

CudnnGraphKey some_graph(AttentionDirection direction) {
  const auto blocks = ring_blocks(RingLayout::striped, 2, 0, 0, 512);
  const TaskSizes sizes{.sequences = 2, .heads = 8, .kv_heads = 2, .head_dim = 64, .sequence = 512};
  return plan_cudnn(ring_task(direction, sizes, 2, 0, blocks), {.compute_capability = kSm}).graph.value();
}

/// Asks for every step of every ring; returns how many graphs of each mask there were.
std::map<CudnnGraphKey::Mask, int> check_rings(CudnnAttention& cudnn, const TaskSizes& base, DType storage) {
  std::map<CudnnGraphKey::Mask, int> graphs;
  for (const RingLayout layout : kLayouts) {
    for (int ring_size = 1; ring_size <= 8; ++ring_size) {
      TaskSizes sizes = base;
      sizes.sequence = base.sequence / sequence_divisor(layout, ring_size) * sequence_divisor(layout, ring_size);
      for (int step = 0; step < ring_size; ++step) {
        for (int rank = 0; rank < ring_size; ++rank) {
          const auto blocks =
              ring_blocks(layout, ring_size, rank, (rank - step + ring_size) % ring_size, sizes.sequence);
          for (const AttentionDirection direction : kDirections) {
            const AttentionTask task = ring_task(direction, sizes, ring_size, step, blocks, storage);
            EXPECT_EQ(cudnn.refusal(task), "") << name_of(layout) << " of " << ring_size << ", step " << step
                                               << ", rank " << rank << ", head_dim " << sizes.head_dim;
            const CudnnPlan plan = plan_cudnn(task, {.compute_capability = kSm});
            if (plan.graph) ++graphs[plan.graph->mask];
          }
        }
      }
    }
  }
  return graphs;
}

TEST(CudnnGraphs, EveryStepOfEveryRingIsSupported) {
  for (const Determinism determinism : {Determinism::any, Determinism::bitwise}) {
    CudnnAttention cudnn = described({.determinism = determinism});
    for (const DType storage : kStorages) {
      for (const TaskSizes& sizes : {TaskSizes{2, 12, 12, 64, 1024}, TaskSizes{1, 16, 16, 128, 4096},
                                     TaskSizes{1, 16, 4, 128, 1000}, TaskSizes{3, 8, 1, 64, 200}}) {
        auto graphs = check_rings(cudnn, sizes, storage);
        EXPECT_GT(graphs[CudnnGraphKey::Mask::full], 0);
        EXPECT_GT(graphs[CudnnGraphKey::Mask::causal], 0);
      }
    }
  }
}

TEST(CudnnGraphs, BottomRightBlocksAreSupported) {
  CudnnAttention cudnn = described();
  for (const std::int64_t head_dim : {64, 128}) {
    const TaskSizes sizes{2, 8, 4, head_dim, 768};
    const std::vector<AttentionBlock> blocks{
        {.query_begin = 0, .query_end = 256, .key_begin = 0, .key_end = 768, .causal = true, .diagonal = 512}};
    for (const AttentionDirection direction : kDirections) {
      const AttentionTask task = ring_task(direction, sizes, 1, 0, blocks);
      ASSERT_EQ(plan_cudnn(task, {.compute_capability = kSm}).graph->mask, CudnnGraphKey::Mask::bottom_right);
      EXPECT_EQ(cudnn.refusal(task), "");
    }
  }
}

TEST(CudnnGraphs, HeadsAndLengthsOfAllSizes) {
  CudnnAttention cudnn = described();
  for (const std::int64_t head_dim : {8, 32, 40, 64, 72, 96, 128, 192, 256}) {
    for (const std::int64_t positions : {2, 7, 64, 129, 1023, 8192}) {
      const TaskSizes sizes{2, 6, 3, head_dim, positions};
      const auto blocks = ring_blocks(RingLayout::contiguous, 1, 0, 0, positions);
      for (const AttentionDirection direction : kDirections) {
        EXPECT_EQ(cudnn.refusal(ring_task(direction, sizes, 1, 0, blocks)), "") << head_dim << " " << positions;
      }
    }
  }
}

/// f32 results in place, as a ring's first step has them, and f32 gradients of keys that no heads share.
TEST(CudnnGraphs, GradientsInF32) {
  CudnnAttention cudnn = described();
  const TaskSizes sizes{2, 8, 8, 128, 512};
  const auto blocks = ring_blocks(RingLayout::zigzag, 1, 0, 0, 512);
  AttentionTask task = ring_task(AttentionDirection::backward, sizes, 1, 0, blocks);
  for (const DType out : {DType::bf16, DType::f32}) {
    task.out = out;
    task.query_grad = task.kv_grad = DType::f32;
    EXPECT_EQ(cudnn.refusal(task), "");
  }
}

/// The check can fail: graphs that our planner never asks for are refused by cuDNN, with its reason.
TEST(CudnnGraphs, UnsupportedGraphsAreRefusedWithAReason) {
  CudnnAttention cudnn = described();
  const auto expect_refused = [&](AttentionDirection direction, auto&& change, const std::string& why) {
    CudnnGraphKey graph = some_graph(direction);
    EXPECT_EQ(cudnn.refusal(graph), "");
    change(graph);
    EXPECT_NE(cudnn.refusal(graph).find(why), std::string::npos) << cudnn.refusal(graph);
  };
  constexpr auto kForward = AttentionDirection::forward, kBackward = AttentionDirection::backward;
  expect_refused(
      kForward, [](CudnnGraphKey& graph) { graph.head_dim = 36; }, "multiple of 8");
  expect_refused(
      kBackward, [](CudnnGraphKey& graph) { graph.head_dim = 264; }, "less than or equal to 256");
  expect_refused(
      kBackward, [](CudnnGraphKey& graph) { graph.kv_grad = DType::f32; }, "fp16/bf16");
  expect_refused(
      kBackward, [](CudnnGraphKey& graph) { graph.storage = graph.out = DType::f32; }, "half / bf16");
  expect_refused(
      kForward, [](CudnnGraphKey& graph) { graph.kv_heads = 3; }, "group-query");
}

/// cuDNN tells some of a graph's workspace even here: its backward is refused where it wants more than the limit.
TEST(CudnnGraphs, WorkspaceBeyondTheLimitIsRefused) {
  const CudnnGraphKey graph = some_graph(AttentionDirection::backward);
  EXPECT_EQ(described({.workspace_bytes = estimated_workspace_bytes(graph)}).refusal(graph), "");
  EXPECT_NE(described({.workspace_bytes = 1000}).refusal(graph).find("workspace"), std::string::npos);
}

TEST(CudnnGraphs, DescriptionsThatAreNoneAreErrors) {
  EXPECT_THROW(CudnnAttention("{}, not json", kSm, {}), DeviceError);
}

}  // namespace
}  // namespace annulus::testing

#else

TEST(CudnnGraphs, Supported) { GTEST_SKIP() << "built without CUDA"; }

#endif
