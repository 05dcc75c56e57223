#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <regex>
#include <utility>

#include "launch/command.h"
#include "launch/cores.h"
#include "launch/memory.h"
#include "launch/rank_setup.h"
#include "model/analytic/flops.h"
#include "model/analytic/of_step.h"
#include "model/counts.h"
#include "runtime/cpu/device.h"
#include "runtime/cuda/planned_workspace.h"
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
  std::string device_memory;
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
  line.option("--device-memory", options.device_memory,
              "Says whether the step fits a GPU with so much memory, as in 80GiB");
  line.flag("--dump", options.dump, "Print the step's program, an op a line, instead");
  line.parse(arguments);
  return options;
}

void print_memory(const Options& options, const MemoryNeed& need, std::int64_t profile_reserve_bytes) {
  fmt::print("memory of the rank: {:.2f} MB in {}\n{}", static_cast<double>(need.device_bytes()) / kMega,
             need.evaluation_bytes > 0 ? "two arenas" : "one arena", need.table);
  fmt::print("beside that, on the host: {:.2f} MB while weights are read or written\n",
             static_cast<double>(need.host_bytes) / kMega);
  if (options.device_memory.empty()) return;
  const std::int64_t reserve = std::max(kLeastReserveBytes, profile_reserve_bytes);
  const std::int64_t total = parse_bytes(options.device_memory, "--device-memory");
  const GpuRoom room{.gpu = "a GPU with " + options.device_memory,
                     .need_bytes = need.device_bytes(),
                     .free_bytes = total,
                     .total_bytes = total,
                     .reserve_bytes = reserve};
  if (const std::string problem = memory_problem(room, need.table); !problem.empty()) throw ConfigError(problem);
  fmt::print(
      "beside that, on the GPU: {:.2f} MB in reserve for its context, NCCL and kernels; of {} {:.2f} MB "
      "remain\n",
      static_cast<double>(reserve) / kMega, options.device_memory,
      static_cast<double>(total - reserve - need.device_bytes()) / kMega);
}

/// Threads of the rank: given, or what a run of all ranks on this host would give it.
int threads_of(const RunConfig& config, std::int64_t rank) {
  if (config.device.threads > 0) return static_cast<int>(config.device.threads);
  const std::vector<CpuSet> pools(static_cast<std::size_t>(config.ranks()), launch_cpus());
  return share_of(pools, static_cast<std::size_t>(rank), quota_cores()).threads;
}

/// The device of the configuration, in words, which need not be here, and bytes of scratch as it wants them.
std::pair<std::string, WorkspaceQuery> planned_device(const RunConfig& config, std::int64_t rank) {
  if (config.device.kind == DeviceKind::cuda) return {"a GPU", planned_workspace_bytes};
  const int threads = threads_of(config, rank);
  return {
      fmt::format("{} thread{}", threads, threads == 1 ? "" : "s"),
      [device = std::make_shared<CpuDevice>(threads)](const auto&... op) { return device->workspace_bytes(op...); }};
}

/// Who holds the activations when there are most of them; layers are taken together.
void print_fullest_moment(const Program& program, const MemoryPlan& plan) {
  constexpr std::size_t kLines = 12;
  const int moment = fullest_moment(program, plan);
  std::map<std::string, std::int64_t> held;
  std::int64_t total = 0;
  for (const MemoryItem& item : alive_at(program, plan, moment)) {
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

/// A rank on the last place of the ring, which has the most keys to attend to where the layout is contiguous.
std::int64_t rank_of_last_place(const RunConfig& config) { return (config.parallel.cp - 1) * config.parallel.tp; }

double step_seconds_of(const RunConfig& config, std::int64_t rank, const WorkspaceQuery& workspace,
                       const HardwareProfile& profile) {
  const MeshAxes mesh = make_mesh(mesh_shape_of(config), static_cast<int>(rank));
  const TrainStep step = record_train_step(mesh, step_options_of(config));
  const Schedule schedule = make_schedule(step.program);
  return predict_step(step.program, schedule, plan_memory(step.program, schedule, workspace), profile).step_seconds;
}

void print_prediction(const HardwareProfile& profile, const StepPrediction& step, const Symbols& symbols) {
  const double mfu = utilisation(model_flops(symbols, AttentionCount::causal), step.step_seconds, symbols.ranks(),
                                 profile.peak_flops_per_second);
  fmt::print(
      "predicted on {}: {:.1f} ms a step (of this rank compute {:.1f}, communication {:.1f}, of it exposed {:.1f}), "
      "{:.0f} "
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
  std::optional<HardwareProfile> profile;
  if (!config.log.profile.empty()) profile = load_hardware_profile(config.log.profile);
  const MeshAxes mesh = make_mesh(mesh_shape_of(config), static_cast<int>(options.rank));
  const StepOptions step_options = step_options_of(config);
  const TrainStep step = record_train_step(mesh, step_options);
  if (options.dump) {
    fmt::print("{}", dump(step.program));
    return 0;
  }
  const Symbols symbols = symbols_of(mesh, step_options);
  const auto [device, workspace] = planned_device(config, options.rank);
  fmt::print("rank {} of {} ({}), {}: {} ops, {} micro-batches of {} sequences of {} tokens\n", options.rank,
             config.ranks(), coordinates(mesh), device, step.program.op_count(), step_options.micro_batches,
             step_options.micro_sequences, step_options.sequence_length);
  const Schedule schedule = make_schedule(step.program);
  const MemoryPlan plan = plan_memory(step.program, schedule, workspace);
  MemoryNeed need = memory_need_of(step.program, step.parameters, plan);
  if (config.training.evaluate_every > 0) {
    const EvaluateStep evaluation = record_evaluate_step(mesh, step_options);
    add_evaluation(need, plan_memory(evaluation.program, make_schedule(evaluation.program), workspace).arena_bytes);
  }
  print_memory(options, need, profile ? profile->device_reserve_bytes : 0);
  print_fullest_moment(step.program, plan);
  print_collectives(step.program);
  fmt::print("{}", compare_counts(closed_form_counts(symbols, mesh), program_counts(step), {}).text);
  if (!profile) {
    fmt::print("no time is predicted: log.profile names no hardware profile (annulus calibrate)\n");
    return 0;
  }
  StepPrediction prediction = predict_step(step.program, schedule, plan, *profile);
  if (const std::int64_t last = rank_of_last_place(config); last != options.rank)  // ranks wait for the slowest
    prediction.step_seconds = std::max(prediction.step_seconds, step_seconds_of(config, last, workspace, *profile));
  print_prediction(*profile, prediction, symbols);
  return 0;
}

}  // namespace annulus
