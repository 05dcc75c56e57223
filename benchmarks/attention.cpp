// Times causal attention, forward and backward, as a training step runs it: over a ring of all ranks of the job, whose
// cores they share; and, every other step, with hops that take no time, which is the most that better hops could bring.
// Prints one line of JSON: medians over steps of the slowest rank's seconds. Arguments as --help says.
#include "runtime/ops/attention.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "collectives/request.h"
#include "launch/command_line.h"
#include "launch/cores.h"
#include "launch/process.h"
#include "parallel/mesh.h"
#include "parallel/ring_attention.h"
#include "runtime/cpu/device.h"
#include "runtime/execute/executor.h"

namespace annulus {
namespace {

struct Options {
  std::int64_t length = 8192, heads = 6, head_dim = 64, sequences = 1, steps = 5;
  std::string layout = "zigzag";
};

Options parse(Arguments arguments) {
  Options options;
  CommandLine line("attention", "Times causal attention, forward and backward, over a ring of all ranks.");
  line.option("--length", options.length, "Positions of a sequence, on all ranks together");
  line.option("--sequences", options.sequences, "Sequences");
  line.option("--heads", options.heads, "Heads");
  line.option("--head-dim", options.head_dim, "Numbers of a head");
  line.option("--layout", options.layout, "Of the ring: contiguous, striped, zigzag");
  line.option("--steps", options.steps, "Steps timed of each kind, behind one that is not");
  line.parse(arguments);
  return options;
}

/// Attention and its gradient on leaves.
Program record(const Options& options, const MeshAxes& mesh) {
  Program program(mesh);
  Placements rows{};
  rows[mesh_axis::cp] = Placement::laid_out_rows();
  const std::int64_t tokens = options.sequences * options.length, width = options.heads * options.head_dim;
  const auto leaf = [&](const char* name, DType dtype, const Shape& shape, const Placements& places) {
    return program.leaf(name, Role::state, dtype, shape, places);  // written once, for all steps
  };
  const std::vector<ValueId> operands{
      leaf("q", DType::f32, {tokens, width}, rows), leaf("kv", DType::f32, {tokens, 2, width}, rows),
      leaf("row_ids", DType::i32, {tokens, 2}, rows), leaf("step", DType::i32, {1}, {})};
  const ValueId dout = leaf("dout", DType::f32, {tokens, width}, rows);
  const AttentionAxes axes{AxisSet(mesh_axis::dp), AxisSet(mesh_axis::cp), AxisSet(mesh_axis::tr)};
  const Attention attention({options.head_dim, options.sequences}, axes, {}, 0);
  const std::vector<ValueId> attended = program.emit(std::make_shared<Attention>(attention), operands);
  std::vector<ValueId> inputs = operands;
  inputs.insert(inputs.end(), {attended[0], attended[1], dout});
  program.set_phase(Phase::backward);
  for (ValueId gradient : program.emit(std::make_shared<AttentionGrad>(attention), inputs)) program.keep(gradient);
  expand_ring_attention(program, parse_ring_layout(options.layout), options.length);
  return program;
}

void fill(Executor& executor, int rank) {
  std::mt19937 engine(std::random_device{}() + static_cast<unsigned>(rank));
  std::normal_distribution<float> draw;
  for (const auto& [name, id] : executor.program().leaves()) {
    const ValueType& type = executor.program().type(id);
    if (executor.plan().offsets[static_cast<std::size_t>(id)] < 0) continue;      // nothing reads it
    std::vector<float> numbers(static_cast<std::size_t>(type.shape.elements()));  // as i32, ids that nothing looks at
    if (type.dtype == DType::f32) std::generate(numbers.begin(), numbers.end(), [&] { return draw(engine); });
    executor.write(id, numbers.data());
  }
}

/// A ring whose hops may take no time: then they leave what was there.
class FreeableHops final : public RequestCommunicator {
 public:
  explicit FreeableHops(Communicator& ring) : ring_(ring) {}
  int size() const override { return ring_.size(); }
  int rank() const override { return ring_.rank(); }
  std::unique_ptr<Communicator> split(int color, int key) override { return ring_.split(color, key); }
  void set_free(bool free) { free_ = free; }

 private:
  struct Nothing final : Transfer {
    bool test() override { return true; }
    Transport transport() const override { return Transport::direct; }
  };
  Pending start(const Request& request) override {
    if (free_) return std::make_unique<Nothing>();
    return ring_.shift(request.send, request.receive, request.count, request.dtype, request.peer);
  }

  Communicator& ring_;
  bool free_ = false;
};

/// Of one step on one rank.
struct Seconds {
  double step = 0, forward = 0, backward = 0, waited = 0;
};

Seconds seconds_of(const StepTrace& trace, const Program& program) {
  Seconds seconds{trace.end - trace.begin, 0, 0, 0};
  for (const OpEvent& event : trace.events) {
    seconds.waited += event.waited;
    if (program.op(event.op).definition->kind() == OpKind::attention_step) seconds.forward += event.end - event.begin;
    if (program.op(event.op).definition->kind() == OpKind::attention_step_grad)
      seconds.backward += event.end - event.begin;
  }
  return seconds;
}

double median(const std::vector<Seconds>& steps, double Seconds::*what) {
  std::vector<double> values;
  for (const Seconds& step : steps) values.push_back(step.*what);
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void run(Process& process, const Options& options) {
  const MeshAxes mesh = make_mesh({.cp = process.size()}, process.rank());
  const int threads = process.claim_cores(0);
  CpuDevice device(threads);
  Groups groups(process.world(), mesh);
  const Program program = record(options, mesh);
  ExecutorOptions executor_options;
  executor_options.shared_memory = process.shared_memory();
  FreeableHops ring(groups.over(AxisSet(mesh_axis::cp)));
  Executor executor(
      program, device, [&](AxisSet) -> Communicator& { return ring; }, executor_options);
  std::vector<Seconds> steps, free_steps;
  for (std::int64_t step = -1; step < 2 * options.steps; ++step) {
    ring.set_free(step % 2 == 1);
    process.gather(std::int32_t{0});  // ranks begin together
    const StepTrace& trace = executor.run([&](const Segment&, int) {
      if (step < 0) fill(executor, process.rank());
    });
    Seconds slowest;
    for (const Seconds& rank : process.gather(seconds_of(trace, program))) {
      for (double Seconds::*part : {&Seconds::step, &Seconds::forward, &Seconds::backward, &Seconds::waited})
        slowest.*part = std::max(slowest.*part, rank.*part);
    }
    if (step >= 0) (step % 2 == 1 ? free_steps : steps).push_back(slowest);
  }
  if (!process.is_first()) return;
  const double positions = static_cast<double>(options.length);
  const double forward = 2.0 * static_cast<double>(options.sequences * options.heads * options.head_dim) * positions *
                         (positions + 1);  // two products on each visible pair
  fmt::print(
      "{{\"ranks\": {}, \"threads\": {}, \"step_seconds\": {:.6f}, \"forward_seconds\": {:.6f}, "
      "\"backward_seconds\": {:.6f}, \"exposed_seconds\": {:.6f}, \"free_hops_seconds\": {:.6f}, \"forward_flops\": "
      "{:.0f}}}\n",
      process.size(), threads, median(steps, &Seconds::step), median(steps, &Seconds::forward),
      median(steps, &Seconds::backward), median(steps, &Seconds::waited), median(free_steps, &Seconds::step), forward);
}

}  // namespace
}  // namespace annulus

int main(int argc, char** argv) {
  using namespace annulus;
  restart_unbound(argv);
  Process process;
  try {
    run(process, parse(std::vector<std::string>(argv + 1, argv + argc)));
  } catch (const HelpRequested& help) {
    if (process.is_first()) fmt::print("{}", help.text);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{} {}\n", process.name(), error.what());
    process.end_job(1);
  }
  return 0;
}
