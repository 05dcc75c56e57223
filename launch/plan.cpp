#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <regex>

#include "launch/command.h"
#include "launch/rank_setup.h"
#include "model/analytic/flops.h"
#include "model/analytic/of_step.h"
#include "model/counts.h"
#include "runtime/cpu/device.h"
#include "runtime/program/dump.h"
#include "runtime/simulate/prediction.h"

namespace annulus {
namespace {

constexpr double kMega = 1e6;

struct Options {
  std::string file;
  std::vector<std::string> overrides;
  std::int64_t ranks = kRanksOfMesh, rank = 0;
  bool dump = false;
};

Options parse(Arguments arguments) {
  Options options;
  CommandLine line("plan",
                   "Tells what a step of the run will take on one rank of any mesh, without running it: memory to the "
                   "byte, collectives, "
                   "counts; and its time, where log.profile is given. Needs one process.");
  line.configuration(options.file, options.overrides);
  line.option("--ranks", options.ranks,
              "Ranks of the job. 0: those of the mesh, with one replica where parallel.dp is open");
  line.option("--rank", options.rank, "The rank to tell of");
  line.flag("--dump", options.dump, "Print the step's program, an op a line, instead");
  line.parse(arguments);
  return options;
}

void print_memory(const Program& program, const MemoryPlan& plan) {
  std::map<std::string, std::int64_t> persistent;
  for (const Value& value : program.values()) {
    const char* role = value.role == Role::parameter ? "weights"
                       : value.role == Role::state   ? "gradients and optimizer"
                       : value.role == Role::input   ? "inputs"
                                                     : nullptr;
    if (role != nullptr) persistent[role] += value.type.bytes();
  }
  fmt::print("memory of the rank: {:.2f} MB in one arena\n", static_cast<double>(plan.arena_bytes) / kMega);
  for (const auto& [role, bytes] : persistent)
    fmt::print("  {:<28} {:>14.2f} MB\n", role, static_cast<double>(bytes) / kMega);
  fmt::print("  {:<28} {:>14.2f} MB (largest at one time)\n", "activations",
             static_cast<double>(plan.activation_bytes) / kMega);
  fmt::print("  {:<28} {:>14.2f} MB\n", "workspace", static_cast<double>(plan.workspace_bytes) / kMega);
}

/// Who holds the activations when there are most of them; layers are taken together.
void print_fullest_moment(const Program& program, const MemoryPlan& plan) {
  constexpr std::size_t kLines = 12;
  const int moment = fullest_moment(program, plan);
  std::map<std::string, std::int64_t> held;
  std::int64_t total = 0;
  for (const AliveItem& item : alive_at(program, plan, moment)) {
    held[std::regex_replace(item.name, std::regex("layers\\.[0-9]+"), "layers.*")] += item.bytes;
    total += item.bytes;
  }
  std::vector<std::pair<std::int64_t, std::string>> lines;
  for (const auto& [name, bytes] : held) lines.emplace_back(bytes, name);
  std::sort(lines.rbegin(), lines.rend());
  const Op& op = program.op(std::min(moment, program.op_count() - 1));
  fmt::print("activations at the fullest moment, before {} {} ({}): {:.2f} MB\n", op.scope, op.definition->name(),
             name_of(op.phase), static_cast<double>(total) / kMega);
  for (std::size_t i = 0; i < lines.size() && i < kLines; ++i)
    fmt::print("  {:<44} {:>10.2f} MB\n", lines[i].second, static_cast<double>(lines[i].first) / kMega);
  if (lines.size() > kLines) fmt::print("  and {} more\n", lines.size() - kLines);
}

void print_collectives(const Program& program) {
  struct Sum {
    std::int64_t calls = 0;
    double payload = 0, wire = 0;
  };
  std::map<std::pair<std::string, std::string>, Sum> sums;
  for (const Op& op : program.ops()) {
    const auto call = op.definition->collective();
    if (!call) continue;
    const int repeat = program.segments()[static_cast<std::size_t>(op.segment)].repeat;
    const OpCost cost = cost_of(program, op);
    Sum& sum = sums[{program.mesh().label(call->axes), std::string(op.definition->name())}];
    sum.calls += repeat;
    sum.payload += repeat * static_cast<double>(cost.payload_bytes);
    sum.wire += repeat * cost.wire_bytes;
  }
  fmt::print("collectives of a step: {}\n", sums.empty() ? "none" : "");
  for (const auto& [key, sum] : sums) {
    fmt::print("  {:<16} over {:<10} {:>6} calls {:>14.2f} MB payload {:>14.2f} MB sent\n", key.second, key.first,
               sum.calls, sum.payload / kMega, sum.wire / kMega);
  }
}

void print_prediction(const RunConfig& config, const Program& program, const Symbols& symbols) {
  if (config.log.profile.empty()) {
    fmt::print("no time is predicted: log.profile names no hardware profile (annulus calibrate)\n");
    return;
  }
  const HardwareProfile profile = load_hardware_profile(config.log.profile);
  const StepPrediction step = predict_step(program, make_schedule(program), profile);
  const double mfu = utilisation(model_flops(symbols, AttentionCount::causal), step.step_seconds, symbols.ranks(),
                                 profile.peak_flops_per_second);
  fmt::print(
      "predicted on {}: {:.1f} ms a step (compute {:.1f}, communication {:.1f}, of it exposed {:.1f}), {:.0f} "
      "tokens/s, MFU {:.1f} %\n",
      profile.name, 1e3 * step.step_seconds, 1e3 * step.compute_seconds, 1e3 * step.communication_seconds,
      1e3 * step.exposed_seconds, static_cast<double>(symbols.tokens()) / step.step_seconds, 100 * mfu);
}

}  // namespace

int run_plan(Arguments arguments) {
  const Options options = parse(arguments);
  const RunConfig config = load_run_config(options.ranks, options.file, options.overrides);
  if (options.rank < 0 || options.rank >= config.ranks()) {
    throw ConfigError(
        fmt::format("--rank={} is out of range; the mesh has ranks 0 to {}", options.rank, config.ranks() - 1));
  }
  const MeshAxes mesh = make_mesh(mesh_shape_of(config), static_cast<int>(options.rank));
  const StepOptions step_options = step_options_of(config);
  const TrainStep step = record_train_step(mesh, step_options);
  if (options.dump) {
    fmt::print("{}", dump(step.program));
    return 0;
  }
  CpuDevice device(1);
  const auto workspace = [&](const OpDefinition& definition, OpDefinition::Types inputs, OpDefinition::Types outputs) {
    return device.workspace_bytes(definition, inputs, outputs);
  };
  const Symbols symbols = symbols_of(mesh, step_options);
  fmt::print("rank {} of {} ({}): {} ops, {} micro-batches of {} sequences of {} tokens\n", options.rank,
             config.ranks(), coordinates(mesh), step.program.op_count(), step_options.micro_batches,
             step_options.micro_sequences, step_options.sequence_length);
  const MemoryPlan plan = plan_memory(step.program, make_schedule(step.program), workspace);
  print_memory(step.program, plan);
  fmt::print("beside the arena, on the host: {:.2f} MB while weights are read or written\n",
             static_cast<double>(memory_need_of(step, plan).host_bytes) / kMega);
  print_fullest_moment(step.program, plan);
  print_collectives(step.program);
  fmt::print("{}", compare_counts(closed_form_counts(symbols, mesh), program_counts(step), {}).text);
  print_prediction(config, step.program, symbols);
  return 0;
}

}  // namespace annulus
