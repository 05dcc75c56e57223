#include <algorithm>

#include "runtime/cuda/cudnn_operands.h"
#include "tests/cpu/support.h"
#include "tests/cuda/fibers.h"
#include "tests/cudnn/tasks.h"

namespace annulus::testing {
namespace {

constexpr auto kForward = AttentionDirection::forward, kBackward = AttentionDirection::backward;

/// An operand of a graph, element by element.
class View {
 public:
  View(const CudnnGraphKey& graph, const CudnnCall& call, CudnnOperand operand)
      : layout_(layout_of(graph, operand)), data_(call.at(operand)) {}
  double get(std::int64_t sequence, std::int64_t head, std::int64_t position, std::int64_t element) const {
    return dispatch_stored(layout_.type, [&]<class T>(T) {
      return static_cast<double>(reinterpret_cast<const T*>(data_)[index(sequence, head, position, element)]);
    });
  }
  void put(std::int64_t sequence, std::int64_t head, std::int64_t position, std::int64_t element, double value) const {
    dispatch_stored(layout_.type, [&]<class T>(T) {
      reinterpret_cast<T*>(data_)[index(sequence, head, position, element)] = static_cast<T>(value);
    });
  }

 private:
  std::int64_t index(std::int64_t sequence, std::int64_t head, std::int64_t position, std::int64_t element) const {
    const auto& strides = layout_.strides;
    return sequence * strides[0] + head * strides[1] + position * strides[2] + element * strides[3];
  }
  CudnnLayout layout_;
  std::byte* data_;
};

/// Does what a graph says, in float64, through nothing but the graph's own layouts and pointers.
class StandIn {
 public:
  StandIn(const CudnnGraphKey& graph, const CudnnCall& call) : graph_(graph), call_(call) {}

  void run() const {
    for (std::int64_t sequence = 0; sequence < graph_.sequences; ++sequence) {
      if (graph_.direction == kForward) {
        for (std::int64_t head = 0; head < graph_.heads; ++head) forward(sequence, head);
      } else {
        for (std::int64_t kv_head = 0; kv_head < graph_.kv_heads; ++kv_head) backward(sequence, kv_head);
      }
    }
  }

 private:
  View view(CudnnOperand operand) const { return {graph_, call_, operand}; }
  std::int64_t group() const { return graph_.heads / graph_.kv_heads; }
  double scale() const { return 1 / std::sqrt(static_cast<double>(graph_.head_dim)); }

  /// Of row i of the first operand and row j of the second.
  double product(CudnnOperand one, CudnnOperand other, std::int64_t sequence, std::int64_t head, std::int64_t i,
                 std::int64_t j) const {
    const View left = view(one), right = view(other);
    const bool keys = other == CudnnOperand::k || other == CudnnOperand::v;
    double sum = 0;
    for (std::int64_t e = 0; e < graph_.head_dim; ++e) {
      sum += left.get(sequence, head, i, e) * right.get(sequence, keys ? head / group() : head, j, e);
    }
    return sum;
  }

  void forward(std::int64_t sequence, std::int64_t head) const {
    const View out = view(CudnnOperand::out), v = view(CudnnOperand::v);
    for (std::int64_t i = 0; i < graph_.queries; ++i) {
      Numbers weights;
      double sum = 0;
      for (std::int64_t j = 0; j < graph_.visible_keys(i); ++j) {
        weights.push_back(std::exp(scale() * product(CudnnOperand::q, CudnnOperand::k, sequence, head, i, j)));
        sum += weights.back();
      }
      view(CudnnOperand::lse).put(sequence, head, i, 0, std::log(sum));
      for (std::int64_t e = 0; e < graph_.head_dim; ++e) {
        double value = 0;
        for (std::size_t j = 0; j < weights.size(); ++j) {
          value += weights[j] / sum * v.get(sequence, head / group(), static_cast<std::int64_t>(j), e);
        }
        out.put(sequence, head, i, e, value);
      }
    }
  }

  void backward(std::int64_t sequence, std::int64_t kv_head) const {
    const std::int64_t width = graph_.head_dim;
    const View q = view(CudnnOperand::q), k = view(CudnnOperand::k), out_grad = view(CudnnOperand::out_grad);
    Numbers key_grad(static_cast<std::size_t>(graph_.keys * width)), value_grad = key_grad;
    for (std::int64_t head = kv_head * group(); head < (kv_head + 1) * group(); ++head) {
      for (std::int64_t i = 0; i < graph_.queries; ++i) {
        const double lse = view(CudnnOperand::lse).get(sequence, head, i, 0),
                     delta = product(CudnnOperand::out_grad, CudnnOperand::out, sequence, head, i, i);
        Numbers query_grad(static_cast<std::size_t>(width));
        for (std::int64_t j = 0; j < graph_.visible_keys(i); ++j) {
          const double p = std::exp(scale() * product(CudnnOperand::q, CudnnOperand::k, sequence, head, i, j) - lse);
          const double slope =
              p * (product(CudnnOperand::out_grad, CudnnOperand::v, sequence, head, i, j) - delta) * scale();
          for (std::int64_t e = 0; e < width; ++e) {
            query_grad[static_cast<std::size_t>(e)] += slope * k.get(sequence, kv_head, j, e);
            key_grad[static_cast<std::size_t>(j * width + e)] += slope * q.get(sequence, head, i, e);
            value_grad[static_cast<std::size_t>(j * width + e)] += p * out_grad.get(sequence, head, i, e);
          }
        }
        for (std::int64_t e = 0; e < width; ++e) {
          view(CudnnOperand::query_grad).put(sequence, head, i, e, query_grad[static_cast<std::size_t>(e)]);
        }
      }
    }
    for (std::int64_t i = 0; i < graph_.keys * width; ++i) {
      const auto at = static_cast<std::size_t>(i);
      view(CudnnOperand::key_grad).put(sequence, kv_head, i / width, i % width, key_grad[at]);
      view(CudnnOperand::value_grad).put(sequence, kv_head, i / width, i % width, value_grad[at]);
    }
  }

  const CudnnGraphKey& graph_;
  const CudnnCall& call_;
};

/// NaN everywhere.
Operand fresh(DType type, Shape shape) {
  Operand operand(type, shape);
  std::fill(operand.bytes().begin(), operand.bytes().end(), std::byte{0xFF});
  return operand;
}

class CudnnCallTest : public KernelTest {
 protected:
  CudnnCallTest() : scheduler_(std::random_device{}()) {}

  void run_task(const AttentionTask& task, std::vector<Operand*> inputs, std::vector<Operand*> outputs) {
    const CudnnPlan plan = plan_cudnn(task, kHopper);
    ASSERT_EQ(plan.refusal, "");
    std::vector<Tensor> input_tensors, output_tensors;
    for (Operand* input : inputs) input_tensors.push_back(input == nullptr ? Tensor{} : input->tensor());
    for (Operand* output : outputs) output_tensors.push_back(output->tensor());
    const std::int64_t bytes = plan.graph ? packed_bytes(*plan.graph) : 0;
    std::vector<std::byte> workspace(static_cast<std::size_t>(bytes) + 64, std::byte{0xFF});
    const KernelArguments arguments{input_tensors, output_tensors, workspace.data(), bytes, &counters_};
    const CudnnCall call(task, plan, arguments);
    const auto put = [&](const auto& rows) { launch_rows(FiberLauncher{scheduler_}, rows); };
    call.prepare(put);
    if (plan.graph) StandIn(*plan.graph, call).run();
    call.finish(put);
    EXPECT_TRUE(std::all_of(workspace.end() - 64, workspace.end(), [](std::byte b) { return b == std::byte{0xFF}; }));
  }

  /// Halves as the CPU's kernels take them here.
  static Operand widened(const Operand& half) { return {DType::f32, half.type().shape, Operand(half).numbers()}; }

  /// A rank's whole ring, forward and backward, against the CPU's kernels in f32.
  void check_rank(RingLayout layout, int ring_size, int rank, const TaskSizes& sizes, DType storage) {
    const std::int64_t rows = sizes.sequences * sizes.sequence / ring_size, width = sizes.heads * sizes.head_dim,
                       kv_width = sizes.kv_heads * sizes.head_dim;
    const Attention composite({sizes.head_dim, sizes.sequences}, {}, {}, 0);
    Operand q = random(storage, {rows, width}), out_grad = random(storage, {rows, width});
    const Operand row_ids(DType::i32, {rows, 2}), step_number(DType::i32, {1});
    Operand out, lse = fresh(DType::f32, {rows, sizes.heads}), query_grad;
    std::vector<Operand> kv, running, gradients;
    std::vector<std::vector<AttentionBlock>> blocks;
    /// Results of another type than the earlier ones lie elsewhere.
    const auto advance = [&](Operand& result, DType type, const auto& step) {
      Operand earlier = result;
      const bool in_place = result.type().dtype == type && result.type().shape == Shape({rows, width});
      if (!in_place) result = fresh(type, {rows, width});
      step(in_place ? &result : &earlier, &result);
    };
    for (int step = 0; step < ring_size; ++step) {
      kv.push_back(random(storage, {rows, 2, kv_width}));
      blocks.push_back(ring_blocks(layout, ring_size, rank, (rank - step + ring_size) % ring_size, sizes.sequence));
      std::vector<Operand> inputs{widened(q), widened(kv.back()), row_ids, step_number};
      inputs.insert(inputs.end(), running.begin(), running.end());
      running = run(AttentionStep(composite, blocks.back(), step == 0), inputs);
      const AttentionTask task = ring_task(kForward, sizes, ring_size, step, blocks.back(), storage);
      advance(out, task.out, [&](Operand* earlier, Operand* result) {
        run_task(task, {&q, &kv.back(), nullptr, nullptr, earlier, &lse}, {result, &lse});
      });
    }
    constexpr double kRounding = 0.005, kHalfError = 0.02;
    expect_close(out.numbers(), running[0].numbers(), kRounding, "out");
    const Numbers found = lse.numbers(), expected = running[1].numbers();
    for (std::size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-5);
    constexpr double kLeast = 2;  // rowsum(dout * out) has the rounding of a half out
    for (int step = 0; step < ring_size; ++step) {
      const auto at = static_cast<std::size_t>(step);
      std::vector<Operand> inputs{widened(q), widened(kv[at]), row_ids,          step_number,
                                  running[0], running[1],      widened(out_grad)};
      if (step > 0) inputs.push_back(gradients[0]);
      gradients = run(AttentionStepGrad(composite, blocks[at], step == 0), inputs);
      const AttentionTask task = ring_task(kBackward, sizes, ring_size, step, blocks[at], storage);
      Operand kv_grad = fresh(task.kv_grad, {rows, 2, kv_width});
      advance(query_grad, task.query_grad, [&](Operand* earlier, Operand* result) {
        run_task(task, {&q, &kv[at], nullptr, nullptr, &out, &lse, &out_grad, earlier}, {result, &kv_grad});
      });
      expect_close(kv_grad.numbers(), gradients[1].numbers(), kHalfError, "dkv", kLeast);
    }
    expect_close(query_grad.numbers(), gradients[0].numbers(), kHalfError, "dq", kLeast);
  }

  FiberScheduler scheduler_;
};

TEST_F(CudnnCallTest, RingsAreThoseOfTheCpu) {
  for (const RingLayout layout : kLayouts) {
    for (const int ring_size : {1, 2, 3}) {
      for (int rank = 0; rank < ring_size; ++rank) {
        const std::int64_t group = integer(1, 2), kv_heads = integer(1, 2);
        const TaskSizes sizes{.sequences = integer(1, 2),
                              .heads = group * kv_heads,
                              .kv_heads = kv_heads,
                              .head_dim = 8 * integer(1, 2),
                              .sequence = sequence_divisor(layout, ring_size) * integer(3, 5)};
        SCOPED_TRACE(std::string(name_of(layout)) + " of " + std::to_string(ring_size) + ", rank " +
                     std::to_string(rank));
        check_rank(layout, ring_size, rank, sizes, integer(0, 1) == 0 ? DType::bf16 : DType::f16);
      }
    }
  }
}

/// Queries of a rank on the keys of all ranks before it: the last row of the keys that it sees is not the last.
TEST_F(CudnnCallTest, BottomRightOnAPartOfTheRows) {
  const TaskSizes sizes{.sequences = 2, .heads = 2, .kv_heads = 1, .head_dim = 8, .sequence = 12};
  const std::vector<AttentionBlock> blocks{
      {.query_begin = 3, .query_end = 7, .key_begin = 2, .key_end = 9, .causal = true, .diagonal = 2}};
  const Attention composite({sizes.head_dim, sizes.sequences}, {}, {}, 0);
  const Operand row_ids(DType::i32, {24, 2}), step(DType::i32, {1});
  Operand q = random(DType::bf16, {24, 16}), kv = random(DType::bf16, {24, 2, 8});
  auto expected = run(AttentionStep(composite, blocks, true), {widened(q), widened(kv), row_ids, step});
  Operand out = fresh(DType::f32, {24, 16}), lse = fresh(DType::f32, {24, 2});
  AttentionTask task = ring_task(kForward, sizes, 1, 0, blocks);
  task.out = DType::f32;
  run_task(task, {&q, &kv}, {&out, &lse});
  expect_close(out.numbers(), expected[0].numbers(), 1e-5, "out");
  const Numbers found = lse.numbers(), wanted = expected[1].numbers();
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_TRUE(found[i] == wanted[i] || std::abs(found[i] - wanted[i]) < 1e-5) << found[i] << " " << wanted[i];
  }
}

}  // namespace
}  // namespace annulus::testing
