// Times the products of a GPT-2 training step, each shape alone, and prints their rates and their FLOP-weighted rate C:
// all FLOPs of the step's products over the sum of their times. The head is taken in chunks of columns. Cold rates are
// of products each of which has operands of its own, of which caches hold nothing, as weights and their gradients in a
// step.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "launch/command_line.h"
#include "launch/cores.h"
#include "runtime/cpu/device.h"
#include "runtime/execute/lanes.h"
#include "runtime/ops/elementwise.h"
#include "runtime/ops/matmul.h"

namespace annulus {
namespace {

struct Options {
  std::int64_t layers = 12, hidden = 768, vocabulary = 50257, tokens = 1024, head_columns = 3200, threads = 0;
  bool json = false;
};

/// y [rows, out] = x [rows, in] w [in, out], as often as a step has it; the head's weight is a table [out, in].
struct Linear {
  std::string name;
  std::int64_t in, out, count;
  bool table = false;
};

std::vector<Linear> linears(const Options& options) {
  const std::int64_t d = options.hidden;
  const std::int64_t chunks = (options.vocabulary + options.head_columns - 1) / options.head_columns;
  return {{"query, output", d, d, 2 * options.layers},
          {"key_value", d, 2 * d, options.layers},
          {"up", d, 4 * d, options.layers},
          {"down", 4 * d, d, options.layers},
          {"head, a chunk", d, (options.vocabulary + chunks - 1) / chunks, chunks, true}};
}

enum class Caches { warm, cold };

class Timer {
 public:
  explicit Timer(int threads) : device_(threads), pool_(device_.allocate(kPoolBytes)) {
    std::mt19937 engine{std::random_device{}()};
    std::uniform_real_distribution<float> draw{-1, 1};
    auto* numbers = reinterpret_cast<float*>(pool_);
    const std::int64_t drawn = 1 << 20, count = kPoolBytes / size_of(DType::f32);
    for (std::int64_t i = 0; i < count; ++i) numbers[i] = i < drawn ? draw(engine) : numbers[i - drawn];
  }

  /// Median seconds of a product of an a and a b of these shapes.
  double seconds(Matmul::Form form, const Shape& a, const Shape& b, Caches caches) {
    const Matmul op(form);
    const std::vector<ValueType> inputs{{DType::f32, a, {}}, {DType::f32, b, {}}}, outputs = op.infer({}, inputs);
    const std::int64_t scratch = device_.workspace_bytes(op, inputs, outputs);
    used_ = 0;
    std::byte* workspace = take(scratch);
    const std::int64_t first = used_;
    WorkCounters counters;
    std::vector<double> times;
    constexpr double kLeastSeconds = 0.15;
    const double begin = now_seconds();
    while (times.size() < 8 || now_seconds() < begin + kLeastSeconds) {
      const std::int64_t needed = inputs[0].bytes() + inputs[1].bytes() + outputs[0].bytes() + 3 * kPage;
      if (caches == Caches::warm || used_ + needed > kPoolBytes) used_ = first;
      const std::vector<Tensor> from{tensor(inputs[0]), tensor(inputs[1])}, to{tensor(outputs[0])};
      const double before = now_seconds();
      device_.run(op, {from, to, workspace, scratch, &counters});
      times.push_back(now_seconds() - before);
    }
    const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
    std::nth_element(times.begin(), middle, times.end());
    return *middle;
  }
  /// Bytes per second of a sum in place of operands that no cache holds: two reads and a write.
  double memory_rate() {
    const std::int64_t count = kPoolBytes / 2 / size_of(DType::f32), bytes = count * size_of(DType::f32);
    const std::vector<Tensor> from{{pool_, DType::f32, {count}}, {pool_ + bytes, DType::f32, {count}}};
    WorkCounters counters;
    double least = 1e9;
    for (int i = 0; i < 5; ++i) {
      const double before = now_seconds();
      device_.run(Accumulate(), {from, {from.data(), 1}, nullptr, 0, &counters});
      least = std::min(least, now_seconds() - before);
    }
    return 3 * static_cast<double>(bytes) / least;
  }
  std::string device() const { return device_.description(); }

 private:
  static constexpr std::int64_t kPoolBytes = std::int64_t{3} << 29, kPage = 4096;

  std::byte* take(std::int64_t bytes) {
    std::byte* memory = pool_ + used_;
    used_ += (bytes + kPage - 1) / kPage * kPage;
    if (used_ > kPoolBytes) throw ConfigError("these products are too large for the pool; use fewer --tokens");
    return memory;
  }
  Tensor tensor(const ValueType& type) { return {take(type.bytes()), type.dtype, type.shape}; }

  CpuDevice device_;
  std::byte* pool_ = nullptr;  ///< what results leave in it is as good as the numbers at first
  std::int64_t used_ = 0;
};

void run(Arguments arguments) {
  Options options;
  CommandLine line("products", "Times the products of a GPT-2 training step, each shape alone.");
  line.option("--layers", options.layers, "Layers");
  line.option("--hidden", options.hidden, "Width");
  line.option("--vocabulary", options.vocabulary, "Vocabulary");
  line.option("--tokens", options.tokens, "Rows: tokens of a step");
  line.option("--head-columns", options.head_columns, "Most columns of a chunk of the head");
  line.option("--threads", options.threads, "Threads; 0: all cores");
  line.flag("--json", options.json, "Print one line of JSON");
  line.parse(arguments);
  const int all = share_of({launch_cpus()}, 0, quota_cores()).threads;
  Timer timer(options.threads > 0 ? static_cast<int>(options.threads) : all);
  double flops = 0, seconds[2] = {};
  std::string table;
  for (const Linear& linear : linears(options)) {
    using enum Matmul::Form;
    const Shape x{options.tokens, linear.in}, y{options.tokens, linear.out};
    const Shape w = linear.table ? Shape{linear.out, linear.in} : Shape{linear.in, linear.out};
    const double work = 2.0 * static_cast<double>(options.tokens * linear.in * linear.out);
    const auto count = static_cast<double>(linear.count);
    flops += 3 * count * work;
    table +=
        fmt::format("| {} | {} x {} x {} | {} |", linear.name, options.tokens, linear.in, linear.out, linear.count);
    for (Caches caches : {Caches::warm, Caches::cold}) {
      for (double time :
           {timer.seconds(linear.table ? nt : nn, x, w, caches), timer.seconds(linear.table ? nn : nt, y, w, caches),
            linear.table ? timer.seconds(tn, y, x, caches) : timer.seconds(tn, x, y, caches)}) {
        seconds[caches == Caches::cold] += count * time;
        table += fmt::format(" {:.1f} |", work / time / 1e9);
      }
    }
    table += "\n";
  }
  const double warm = flops / seconds[0] / 1e9, cold = flops / seconds[1] / 1e9;
  const double memory = timer.memory_rate() / 1e9;
  if (options.json) {
    fmt::print(
        "{{\"weighted_gflops\": {:.2f}, \"cold_gflops\": {:.2f}, \"memory_gbytes\": {:.2f}, \"flops\": {:.0f}}}\n",
        warm, cold, memory, flops);
    return;
  }
  fmt::print("{}. GFLOP/s of each product; all together {:.1f}, cold {:.1f}; memory {:.1f} GB/s.\n\n", timer.device(),
             warm, cold, memory);
  fmt::print(
      "| product | rows x in x out | in a step | forward | data gradient | weight gradient | the same cold | | |\n");
  fmt::print("|---|---|---|---|---|---|---|---|---|\n{}", table);
}

}  // namespace
}  // namespace annulus

int main(int argc, char** argv) {
  try {
    annulus::run(std::vector<std::string>(argv + 1, argv + argc));
  } catch (const annulus::HelpRequested& help) {
    fmt::print("{}", help.text);
  } catch (const std::exception& error) {
    fmt::print(stderr, "products: {}\n", error.what());
    return 1;
  }
  return 0;
}
