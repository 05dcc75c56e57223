// Micro-benchmarks: every compute kind on a device, on GPT-2's shapes, in both floating types.
//   kernels [--benchmark_filter=REGEX] [--benchmark_repetitions=N] ...
// Beside the time: GB/s of what the op must read and write, GFLOP/s of products and attention.

#include <benchmark/benchmark.h>

#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "runtime/cpu/device.h"
#include "runtime/execute/calibration_cases.h"
#include "runtime/ops/op_table.h"

namespace annulus {
namespace {

constexpr std::int64_t kWidth = 768, kInner = 4 * kWidth, kHeads = 12, kHeadDim = 64;
constexpr std::int64_t kVocabulary = 50257, kPadded = 50304;

struct NamedCase {
  std::string form;
  OpCase op;
};

/// A row a kind: its forms on one sequence of `tokens`. A kind without a row does not compile.
struct KernelTable {
  std::int64_t tokens;
  DType dtype;

  template <class Kind, class... Arguments>
  static NamedCase made(std::string form, std::vector<ValueType> inputs, Arguments... arguments) {
    return {std::move(form), {std::make_shared<Kind>(arguments...), std::move(inputs)}};
  }
  ValueType numbers(Shape shape) const { return {dtype, shape, {}}; }
  ValueType matrix(std::int64_t columns = kWidth) const { return numbers({tokens, columns}); }
  ValueType row_numbers() const { return numbers({tokens}); }
  ValueType ids(Shape shape) const { return {DType::i32, shape, {}}; }
  ValueType sums(std::int64_t count) const { return {DType::f64, {count}, {}}; }
  ValueType vector() const { return numbers({kWidth}); }
  ValueType table() const { return numbers({kPadded, kWidth}); }
  ValueType logits() const { return matrix(kPadded); }
  VocabularyShard shard() const { return {0, kVocabulary}; }

  using Cases = std::vector<NamedCase>;
  Cases cases(const Matmul*) const {
    const ValueType x = matrix(), y = matrix(kInner), w = numbers({kWidth, kInner});
    using Form = Matmul::Form;
    return {made<Matmul>("nn", {x, w}, Form::nn), made<Matmul>("nt", {y, w}, Form::nt),
            made<Matmul>("tn", {x, y}, Form::tn),
            made<Matmul>("nn + bias, gelu and input", {x, w, numbers({kInner})}, Form::nn,
                         ProductEpilogue{.bias = ProductEpilogue::Bias::of_columns,
                                         .finish = ProductEpilogue::Finish::gelu_and_input}),
            made<Matmul>("nt, gelu slope", {x, numbers({kInner, kWidth}), y}, Form::nt,
                         ProductEpilogue{.finish = ProductEpilogue::Finish::gelu_slope})};
  }
  Cases cases(const Add*) const {
    return {made<Add>("", {matrix(), matrix()}), made<Add>("table", {table(), table()})};
  }
  Cases cases(const AddBias*) const { return {made<AddBias>("", {matrix(kInner), numbers({kInner})})}; }
  Cases cases(const ColumnSum*) const {
    return {made<ColumnSum>("", {matrix(kInner)}), made<ColumnSum>("narrow", {matrix()})};
  }
  Cases cases(const Gelu*) const {
    return {made<Gelu>("tanh", {matrix(kInner)}, Activation::gelu_tanh),
            made<Gelu>("erf", {matrix(kInner)}, Activation::gelu_erf)};
  }
  Cases cases(const GeluGrad*) const {
    const ValueType x = matrix(kInner);
    return {made<GeluGrad>("tanh", {x, x}, Activation::gelu_tanh), made<GeluGrad>("erf", {x, x}, Activation::gelu_erf)};
  }
  Cases cases(const LayerNorm*) const { return {made<LayerNorm>("", {matrix(), vector(), vector()}, 1e-5)}; }
  Cases cases(const LayerNormGrad*) const {
    return {made<LayerNormGrad>("", {matrix(), vector(), matrix(2), matrix()}),
            made<LayerNormGrad>("addend", {matrix(), vector(), matrix(2), matrix(), matrix()},
                                LayerNormGrad::Addend::operand)};
  }
  Cases cases(const ResidualNorm*) const {
    using Bias = ResidualNorm::Bias;
    const LayerNorm norm(1e-5);
    const Dropout dropout(DropoutMask{0.1, 1, 2}, 0);
    return {made<ResidualNorm>("", {matrix(), matrix(), vector(), vector()}, norm, Bias::none, std::nullopt),
            made<ResidualNorm>("bias, dropout",
                               {matrix(), matrix(), vector(), vector(), vector(), ids({tokens, 2}), ids({1})}, norm,
                               Bias::of_columns, dropout)};
  }
  Cases cases(const Embed*) const { return {made<Embed>("", {ids({tokens}), table()}, 0)}; }
  Cases cases(const EmbedGrad*) const { return {made<EmbedGrad>("", {ids({tokens}), table(), matrix()}, 0)}; }
  Cases cases(const Dropout*) const {
    return {made<Dropout>("", {matrix(), ids({tokens, 2}), ids({1})}, DropoutMask{0.1, 1, 2}, 0)};
  }
  Cases cases(const RowMax*) const { return {made<RowMax>("", {logits()}, shard())}; }
  Cases cases(const RowSumExp*) const { return {made<RowSumExp>("", {logits(), row_numbers()}, shard())}; }
  Cases cases(const RowTarget*) const { return {made<RowTarget>("", {logits(), ids({tokens})}, shard())}; }
  Cases cases(const RowSoftmax*) const { return {made<RowSoftmax>("", {logits(), ids({tokens})}, shard())}; }
  Cases cases(const Nll*) const {
    const ValueType row = row_numbers();
    return {made<Nll>("", {logits(), row, row, row, ids({tokens}), row}, shard())};
  }
  Cases cases(const NllGrad*) const {
    const ValueType row = row_numbers();
    return {made<NllGrad>("", {logits(), row, row, ids({tokens}), row}, shard())};
  }
  Cases cases(const AttentionStep*) const { return {{"", attention_cases(dtype, 1, tokens, kHeads).forward}}; }
  Cases cases(const AttentionStepGrad*) const { return {{"", attention_cases(dtype, 1, tokens, kHeads).backward}}; }
  Cases cases(const SumSquares*) const {
    return {made<SumSquares>("", {table()}), made<SumSquares>("vector", {vector()})};
  }
  Cases cases(const Accumulate*) const { return {made<Accumulate>("", {table(), table()})}; }
  Cases cases(const Cast*) const { return {made<Cast>("to bf16", {matrix()}, DType::bf16)}; }
  Cases cases(const Zero*) const { return {made<Zero>("", {table()})}; }
  Cases cases(const Slice*) const { return {made<Slice>("", {matrix()}, AxisSet(), 1, 0, 2)}; }
  Cases cases(const Clip*) const { return {made<Clip>("", {sums(1), sums(2)}, 1.0)}; }
  Cases cases(const AdamW*) const {
    constexpr std::size_t kVectors = 100;
    const ValueType w = table(), v = vector();
    std::vector<ValueType> vectors(4 * kVectors, v);
    vectors.insert(vectors.end(), 2, sums(4));
    return {made<AdamW>("", {w, w, w, w, sums(4), sums(4)}, AdamW::Options{}),
            made<AdamW>("vector", {v, v, v, v, sums(4), sums(4)}, AdamW::Options{}),
            made<AdamW>("vectors", vectors, AdamW::Options{}, AdamW::WorkingCopy::none, kVectors)};
  }
};

/// Operands of a case in several places, which calls use in turn: else they would stay in a nearer cache than in a
/// step.
class BoundCase {
  static constexpr std::int64_t kWorkingSet = std::int64_t{64} << 20;

 public:
  explicit BoundCase(const OpCase& op) : op_(op), outputs_(op.outputs()) {
    std::int64_t bytes = 0;
    for (const ValueType& type : op_.inputs) bytes += aligned(type.bytes());
    for (const ValueType& type : outputs_) bytes += aligned(type.bytes());
    const std::int64_t places = std::max<std::int64_t>(1, kWorkingSet / bytes);
    workspace_bytes_ = aligned(device_.workspace_bytes(*op_.definition, op_.inputs, outputs_));
    free_ = device_.allocate(workspace_bytes_ + places * bytes);
    workspace_ = take(workspace_bytes_);
    for (std::int64_t i = 0; i < places; ++i) places_.push_back(place());
  }

  void run() {
    Place& at = places_[next_++ % places_.size()];
    device_.run(*op_.definition, {at.inputs, at.outputs, workspace_, workspace_bytes_, &counters_});
  }

 private:
  struct Place {
    std::vector<Tensor> inputs, outputs;
  };

  static std::int64_t aligned(std::int64_t bytes) { return (bytes + 63) / 64 * 64; }
  std::byte* take(std::int64_t bytes) { return std::exchange(free_, free_ + aligned(bytes)); }

  Tensor operand(const ValueType& type) {
    const Tensor tensor{take(type.bytes()), type.dtype, type.shape};
    std::uniform_int_distribution<std::int32_t> any(0, kVocabulary - 1);
    std::uniform_real_distribution<double> number(0.1, 2);
    constexpr std::int64_t kDrawn = 65536;  // then again the same
    const auto fill = [&]<class T>(T* to, auto draw) {
      for (std::int64_t i = 0; i < tensor.elements(); ++i) to[i] = i < kDrawn ? draw() : to[i - kDrawn];
    };
    if (type.dtype == DType::i32) {
      fill(tensor.as<std::int32_t>(), [&] { return any(engine_); });
    } else {
      dispatch_float(type.dtype, [&]<class T>(T) { fill(tensor.as<T>(), [&] { return T(number(engine_)); }); });
    }
    return tensor;
  }

  Place place() {
    Place at;
    for (const ValueType& type : op_.inputs) at.inputs.push_back(operand(type));
    at.outputs.resize(outputs_.size());
    for (const Alias& alias : op_.definition->aliases())
      at.outputs[static_cast<std::size_t>(alias.output)] = at.inputs[static_cast<std::size_t>(alias.input)];
    for (std::size_t i = 0; i < outputs_.size(); ++i)
      if (at.outputs[i].data == nullptr) at.outputs[i] = operand(outputs_[i]);
    return at;
  }

  OpCase op_;
  std::vector<ValueType> outputs_;
  CpuDevice device_;
  std::mt19937_64 engine_;
  std::vector<Place> places_;
  std::byte *free_ = nullptr, *workspace_ = nullptr;
  std::int64_t workspace_bytes_ = 0;
  std::size_t next_ = 0;
  WorkCounters counters_;
};

/// The case that is bound at present: a benchmark is called several times, with more iterations each time.
struct Current {
  const OpDefinition* op = nullptr;
  std::unique_ptr<BoundCase> bound;
};

void measure(benchmark::State& state, const OpCase& op, Current& current) {
  if (current.op != op.definition.get()) {
    current.bound.reset();
    current.bound = std::make_unique<BoundCase>(op);
    current.bound->run();  // prepares the kernel
    current.op = op.definition.get();
  }
  for (auto _ : state) current.bound->run();
  const Work work = op.work();
  const auto per_second = [](double amount) {
    return benchmark::Counter(amount * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
  };
  state.counters["GB/s"] = per_second(static_cast<double>(work.bytes_read + work.bytes_written));
  if (work.flops > 0) state.counters["GFLOP/s"] = per_second(work.flops);
}

void add_benchmarks(std::string_view kind, const KernelTable& table, const std::vector<NamedCase>& cases,
                    Current& current) {
  for (const NamedCase& named : cases) {
    const std::string name = std::string(kind) + (named.form.empty() ? "" : "_" + named.form) + "/" +
                             std::string(name_of(table.dtype)) + "/" + std::to_string(table.tokens);
    benchmark::RegisterBenchmark(name.c_str(),
                                 [op = named.op, &current](benchmark::State& state) { measure(state, op, current); })
        ->UseRealTime()
        ->MinTime(0.1)
        ->Unit(benchmark::kMicrosecond);
  }
}

}  // namespace
}  // namespace annulus

int main(int argc, char** argv) {
  using namespace annulus;
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  Current current;
  for (DType dtype : {DType::f32, DType::f64}) {
    for (std::int64_t tokens : {256, 1024}) {
      const KernelTable table{tokens, dtype};
#define ANNULUS_KIND(enumerator, type) \
  add_benchmarks(#enumerator, table, table.cases(static_cast<const type*>(nullptr)), current);
      ANNULUS_COMPUTE_KINDS(ANNULUS_KIND)
#undef ANNULUS_KIND
    }
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
