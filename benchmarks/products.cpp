// Times the products of a GPT-2 training step, each shape alone, and prints their rates and their FLOP-weighted rate C:
// all FLOPs of the step's products over the sum of their times. The head is taken in chunks of columns.
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

class Timer {
 public:
  explicit Timer(int threads) : device_(threads) {}

  /// Median seconds of a product of an a and a b of these shapes.
  double seconds(Matmul::Form form, const Shape& a, const Shape& b) {
    const Matmul op(form);
    const std::vector<ValueType> inputs{{DType::f32, a, {}}, {DType::f32, b, {}}}, outputs = op.infer({}, inputs);
    used_ = 0;
    const std::vector<Tensor> from{tensor(inputs[0]), tensor(inputs[1])}, to{tensor(outputs[0])};
    const std::int64_t bytes = device_.workspace_bytes(op, inputs, outputs);
    std::byte* workspace = take(bytes);
    WorkCounters counters;
    std::vector<double> times;
    constexpr double kLeastSeconds = 0.15;
    const double begin = now_seconds();
    while (times.size() < 8 || now_seconds() < begin + kLeastSeconds) {
      const double before = now_seconds();
      device_.run(op, {from, to, workspace, bytes, &counters});
      times.push_back(now_seconds() - before);
    }
    const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
    std::nth_element(times.begin(), middle, times.end());
    return *middle;
  }
  std::string device() const { return device_.description(); }

 private:
  /// The next piece of memory that all products share: numbers from an earlier one are as good as any.
  std::byte* take(std::int64_t bytes) {
    const std::int64_t lines = (bytes + 4095) / 4096 * 4096;
    if (used_ == pieces_.size() || sizes_[used_] < lines) {
      pieces_.resize(used_), sizes_.resize(used_);
      pieces_.push_back(device_.allocate(lines));
      sizes_.push_back(lines);
    }
    return pieces_[used_++];
  }
  Tensor tensor(const ValueType& type) {
    const Tensor made{take(type.bytes()), type.dtype, type.shape};
    for (std::int64_t i = 0; i < type.shape.elements(); ++i) made.as<float>()[i] = draw_(engine_);
    return made;
  }

  CpuDevice device_;
  std::vector<std::byte*> pieces_;
  std::vector<std::int64_t> sizes_;
  std::size_t used_ = 0;
  std::mt19937 engine_{std::random_device{}()};
  std::uniform_real_distribution<float> draw_{-1, 1};
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
  double flops = 0, seconds = 0;
  std::string table;
  for (const Linear& linear : linears(options)) {
    using enum Matmul::Form;
    const Shape x{options.tokens, linear.in}, y{options.tokens, linear.out};
    const Shape w = linear.table ? Shape{linear.out, linear.in} : Shape{linear.in, linear.out};
    const double times[] = {timer.seconds(linear.table ? nt : nn, x, w), timer.seconds(linear.table ? nn : nt, y, w),
                            linear.table ? timer.seconds(tn, y, x) : timer.seconds(tn, x, y)};
    const double work = 2.0 * static_cast<double>(options.tokens * linear.in * linear.out);
    table +=
        fmt::format("| {} | {} x {} x {} | {} |", linear.name, options.tokens, linear.in, linear.out, linear.count);
    for (double time : times) {
      flops += static_cast<double>(linear.count) * work;
      seconds += static_cast<double>(linear.count) * time;
      table += fmt::format(" {:.1f} |", work / time / 1e9);
    }
    table += "\n";
  }
  if (options.json) {
    fmt::print("{{\"weighted_gflops\": {:.2f}, \"flops\": {:.0f}}}\n", flops / seconds / 1e9, flops);
    return;
  }
  fmt::print("{}. GFLOP/s of each product; all together {:.1f}.\n\n", timer.device(), flops / seconds / 1e9);
  fmt::print("| product | rows x in x out | in a step | forward | data gradient | weight gradient |\n");
  fmt::print("|---|---|---|---|---|---|\n{}", table);
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
