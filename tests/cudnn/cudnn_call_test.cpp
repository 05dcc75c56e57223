#include <algorithm>
#include <bit>

#include "runtime/cuda/cudnn_operands.h"
#include "tests/cpu/support.h"
#include "tests/cuda/fibers.h"
#include "tests/cudnn/tasks.h"

namespace annulus::testing {
namespace {

constexpr auto kForward = AttentionDirection::forward, kBackward = AttentionDirection::backward;

float widen(std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t{bits} << 16); }
std::uint16_t narrow(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/// An operand of a graph, element by element.
class View {
 public:
  View(const CudnnGraphKey& graph, const CudnnCall& call, CudnnOperand operand)
      : layout_(layout_of(graph, operand)), data_(call.at(operand)) {}
  double get(std::int64_t sequence, std::int64_t head, std::int64_t position, std::int64_t element) const {
    const std::int64_t i = index(sequence, head, position, element);
    return layout_.type == AttentionType::f32 ? reinterpret_cast<const float*>(data_)[i]
                                              : widen(reinterpret_cast<const std::uint16_t*>(data_)[i]);
  }
  void put(std::int64_t sequence, std::int64_t head, std::int64_t position, std::int64_t element, double value) const {
    const std::int64_t i = index(sequence, head, position, element);
    if (layout_.type == AttentionType::f32) {
      reinterpret_cast<float*>(data_)[i] = static_cast<float>(value);
    } else {
      reinterpret_cast<std::uint16_t*>(data_)[i] = narrow(static_cast<float>(value));
    }
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

/// bf16 or f32 numbers with memory of their own, NaN at first. Two bf16 stand in for one f32 of the tensor's shape.
struct Buffer {
  AttentionType type;
  Shape shape;
  std::vector<std::byte> bytes;

  Buffer(AttentionType of, Shape extents) : type(of), shape(extents) {
    bytes.assign(static_cast<std::size_t>(shape.elements() * (is_float() ? 4 : 2)), std::byte{0xFF});
  }
  Buffer(AttentionType of, Shape extents, const Numbers& numbers) : Buffer(of, extents) {
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      const auto value = static_cast<float>(numbers[i]);
      const std::uint16_t half = narrow(value);
      is_float() ? std::memcpy(&bytes[4 * i], &value, 4) : std::memcpy(&bytes[2 * i], &half, 2);
    }
  }
  bool is_float() const { return type == AttentionType::f32; }
  Tensor tensor() { return {bytes.data(), DType::f32, {shape[0], shape.columns() / (is_float() ? 1 : 2)}}; }
  Numbers numbers() const {
    Numbers all;
    for (std::int64_t i = 0; i < shape.elements(); ++i) {
      float value = 0;
      std::uint16_t half = 0;
      std::memcpy(is_float() ? static_cast<void*>(&value) : &half,
                  &bytes[static_cast<std::size_t>(is_float() ? 4 * i : 2 * i)], is_float() ? 4 : 2);
      all.push_back(is_float() ? value : widen(half));
    }
    return all;
  }
};

class CudnnCallTest : public KernelTest {
 protected:
  CudnnCallTest() : scheduler_(std::random_device{}()) {}

  /// Numbers that bf16 holds exactly.
  Operand halves(Shape shape) {
    Numbers numbers(static_cast<std::size_t>(shape.elements()));
    for (double& x : numbers) x = widen(narrow(static_cast<float>(normal())));
    return {DType::f32, shape, numbers};
  }

  void run_task(const AttentionTask& task, std::vector<Buffer*> inputs, std::vector<Buffer*> outputs) {
    const CudnnPlan plan = plan_cudnn(task, kHopper);
    ASSERT_EQ(plan.refusal, "");
    std::vector<Tensor> input_tensors, output_tensors;
    for (Buffer* input : inputs) input_tensors.push_back(input == nullptr ? Tensor{} : input->tensor());
    for (Buffer* output : outputs) output_tensors.push_back(output->tensor());
    const std::int64_t bytes = plan.graph ? packed_bytes(*plan.graph) : 0;
    std::vector<std::byte> workspace(static_cast<std::size_t>(bytes) + 64, std::byte{0xFF});
    const KernelArguments arguments{input_tensors, output_tensors, workspace.data(), bytes, &counters_};
    const CudnnCall call(task, plan, arguments);
    const auto put = [&](const auto& rows) { launch_rows(FiberLauncher{scheduler_}, rows); };
    call.prepare(put);
    if (!plan.graph) return;
    StandIn(*plan.graph, call).run();
    call.finish(put);
    EXPECT_TRUE(std::all_of(workspace.end() - 64, workspace.end(), [](std::byte b) { return b == std::byte{0xFF}; }));
  }

  /// A rank's whole ring, forward and backward, against the CPU's kernels in f32.
  void check_rank(RingLayout layout, int ring_size, int rank, const TaskSizes& sizes) {
    const std::int64_t rows = sizes.sequences * sizes.sequence / ring_size, width = sizes.heads * sizes.head_dim,
                       kv_width = sizes.kv_heads * sizes.head_dim;
    const Attention composite({sizes.head_dim, sizes.sequences}, {}, {}, 0);
    const AttentionType half = AttentionType::bf16, f32 = AttentionType::f32, sums = ring_size == 1 ? half : f32;
    Operand q = halves({rows, width}), out_grad = halves({rows, width});
    const Operand row_ids(DType::i32, {rows, 2}), step_number(DType::i32, {1});
    Buffer q_half(half, {rows, width}, q.numbers()), out_grad_half(half, {rows, width}, out_grad.numbers()),
        out(sums, {rows, width}), lse(f32, {rows, sizes.heads}), query_grad(sums, {rows, width});
    std::vector<Operand> kv, running, gradients;
    std::vector<std::vector<AttentionBlock>> blocks;
    for (int step = 0; step < ring_size; ++step) {
      kv.push_back(halves({rows, 2, kv_width}));
      blocks.push_back(ring_blocks(layout, ring_size, rank, (rank - step + ring_size) % ring_size, sizes.sequence));
      std::vector<Operand> inputs{q, kv.back(), row_ids, step_number};
      inputs.insert(inputs.end(), running.begin(), running.end());
      running = run(AttentionStep(composite, blocks.back(), step == 0), inputs);
      Buffer kv_half(half, {rows, 2, kv_width}, kv.back().numbers());
      run_task(ring_task(kForward, sizes, ring_size, step, blocks.back()), {&q_half, &kv_half}, {&out, &lse});
    }
    constexpr double kHalfError = 0.02;  // results in bf16
    expect_close(out.numbers(), running[0].numbers(), ring_size == 1 ? kHalfError : 1e-5, "out");
    const Numbers found = lse.numbers(), expected = running[1].numbers();
    for (std::size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-5);
    const double least = ring_size == 1 ? 2 : 0.1;  // rowsum(dout * out) has the rounding of a bf16 out
    for (int step = 0; step < ring_size; ++step) {
      const auto at = static_cast<std::size_t>(step);
      std::vector<Operand> inputs{q, kv[at], row_ids, step_number, running[0], running[1], out_grad};
      if (step > 0) inputs.push_back(gradients[0]);
      gradients = run(AttentionStepGrad(composite, blocks[at], step == 0), inputs);
      Buffer kv_half(half, {rows, 2, kv_width}, kv[at].numbers()), kv_grad(half, {rows, 2, kv_width});
      AttentionTask task = ring_task(kBackward, sizes, ring_size, step, blocks[at]);
      task.out = sums;
      run_task(task, {&q_half, &kv_half, nullptr, nullptr, &out, &lse, &out_grad_half}, {&query_grad, &kv_grad});
      expect_close(kv_grad.numbers(), gradients[1].numbers(), kHalfError, "dkv", least);
    }
    expect_close(query_grad.numbers(), gradients[0].numbers(), ring_size == 1 ? kHalfError : 1e-4, "dq", least);
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
        check_rank(layout, ring_size, rank, sizes);
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
  const Operand q = halves({24, 16}), row_ids(DType::i32, {24, 2}), step(DType::i32, {1});
  Operand kv = halves({24, 2, 8});
  auto expected = run(AttentionStep(composite, blocks, true), {q, kv, row_ids, step});
  Buffer q_half(AttentionType::bf16, {24, 16}, Operand(q).numbers()),
      kv_half(AttentionType::bf16, {24, 2, 8}, kv.numbers()), out(AttentionType::f32, {24, 16}),
      lse(AttentionType::f32, {24, 2});
  AttentionTask task = ring_task(kForward, sizes, 1, 0, blocks);
  task.out = AttentionType::f32;
  run_task(task, {&q_half, &kv_half}, {&out, &lse});
  expect_close(out.numbers(), expected[0].numbers(), 1e-5, "out");
  const Numbers found = lse.numbers(), wanted = expected[1].numbers();
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_TRUE(found[i] == wanted[i] || std::abs(found[i] - wanted[i]) < 1e-5) << found[i] << " " << wanted[i];
  }
}

}  // namespace
}  // namespace annulus::testing
