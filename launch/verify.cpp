#include "model/verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "launch/command.h"
#include "launch/rank_device.h"
#include "launch/rank_setup.h"
#include "model/analytic/of_step.h"
#include "model/counts.h"

namespace annulus {
namespace {

constexpr std::int64_t kStepNumber = 1;
constexpr double kUpdateTolerance = 1e-5;  // of weights after updates in f64, in learning rates

struct Options {
  std::string file;
  std::vector<std::string> overrides;
  double tolerance = 0;
  bool as_configured = false;
};

Options parse(Arguments arguments) {
  Options options;
  CommandLine line("verify",
                   "Takes one step on this mesh and the same step on one rank, with random tokens and loss weights and "
                   "the weights of "
                   "the seed, and compares loss, every gradient and, in float64, the weights after two updates; and "
                   "holds every count of the step against closed "
                   "form and program. "
                   "In float64. Exit code 0 or 1.");
  line.configuration(options.file, options.overrides);
  line.option("--tolerance", options.tolerance,
              "Largest error of loss and norm, relative, and of gradients, relative to the largest. 0: 1e-10 (f64), "
              "1e-4 (f32), 0.1 (bf16) or 0.02 (f16)");
  line.flag("--as-configured", options.as_configured, "In the configuration's training.dtype instead");
  line.parse(arguments);
  if (!(options.tolerance >= 0))
    throw ConfigError(fmt::format("--tolerance={} is out of range; it must be at least 0", options.tolerance));
  return options;
}

/// Rank 0's values on every rank.
void share(Process& process, WholeValues& values, const std::vector<Parameter>& parameters) {
  for (const Parameter& parameter : parameters) {
    std::vector<double>& whole = values[parameter.name];
    whole.resize(static_cast<std::size_t>(parameter.shape.elements()));
    wait(process.world().broadcast(whole.data(), parameter.shape.elements(), DType::f64, 0));
  }
}

/// Rank 0's reference on every rank.
void share(Process& process, ReferenceStep& reference, const TrainStep& step) {
  double head[4] = {reference.summary.gradient_norm, reference.summary.loss, reference.summary.loss_weights,
                    reference.largest_gradient};
  wait(process.world().broadcast(head, 4, DType::f64, 0));
  reference.summary = {head[0], head[1], head[2]};
  reference.largest_gradient = head[3];
  share(process, reference.gradients, step.parameters);
}

/// Sees to it that this rank has what it will be asked for: the step on the mesh, which stays; and one at a time, on
/// memory that is given back, the updates, and on rank 0 the same steps on one rank.
void make_ready(Process& process, RankDevice& device, const RunConfig& config, const TrainStep& step,
                const MeshAxes& mesh, const StepOptions& options) {
  std::int64_t device_reserve = 0;
  process.agree([&] { device_reserve = device_reserve_bytes(config); });
  std::vector<TrainStep> others;
  const bool has_updates = options.dtype == DType::f64;
  if (has_updates) others.push_back(record_train_step(mesh, options, Tail::update));
  if (process.is_first()) {
    const StepOptions alone = one_rank_options(options, mesh[mesh_axis::dp].size);
    others.push_back(record_train_step(make_mesh({}, 0), alone, Tail::gradients));
    if (has_updates) others.push_back(record_train_step(make_mesh({}, 0), alone, Tail::update));
  }
  MemoryNeed need = memory_need_of(step.program, step.parameters, device.device());
  std::vector<const Program*> programs{&step.program};
  std::int64_t largest = 0;
  for (const TrainStep& other : others) {
    largest = std::max(largest, memory_need_of(other.program, other.parameters, device.device()).arena_bytes);
    programs.push_back(&other.program);
  }
  need.arena_bytes += largest;
  device.make_ready(need, device_reserve, programs);
}

/// The largest difference, over all ranks, of weights after updates on the mesh from those on one rank.
double compare_updates(Process& process, RankDevice& device, Groups& groups, const ExecutorOptions& executor_options,
                       const MeshAxes& mesh, const StepOptions& options, const SequenceReader& read) {
  WholeValues reference;
  if (process.is_first())
    reference = take_reference_updates(one_rank_options(options, mesh[mesh_axis::dp].size), *device.another(), read);
  const std::unique_ptr<Device> apart = device.another();  // gives the memory back
  StepRunner runner(mesh, options, Tail::update, *apart, groups.lookup(), executor_options);
  share(process, reference, runner.step().parameters);
  runner.initialize();
  take_updates(runner, read);
  double largest = update_deviation(reference, runner);
  wait(process.world().all_reduce(&largest, &largest, 1, DType::f64, Reduction::max));
  return largest;
}

/// The largest deviations of all ranks.
Deviation largest_of(Communicator& world, Deviation own, const std::vector<Parameter>& parameters) {
  std::vector<double> errors{own.loss, own.norm};
  errors.insert(errors.end(), own.by_parameter.begin(), own.by_parameter.end());
  for (double& error : errors)
    if (std::isnan(error)) error = INFINITY;
  wait(world.all_reduce(errors.data(), errors.data(), std::ssize(errors), DType::f64, Reduction::max));
  own.loss = errors[0];
  own.norm = errors[1];
  own.by_parameter.assign(errors.begin() + 2, errors.end());
  const auto worst = std::max_element(own.by_parameter.begin(), own.by_parameter.end());
  own.gradient = *worst;
  own.parameter = parameters[static_cast<std::size_t>(worst - own.by_parameter.begin())].name;
  return own;
}

/// A line for each parameter, the worst first.
void print_gradients(const Deviation& deviation, const std::vector<Parameter>& parameters) {
  std::vector<std::size_t> order(parameters.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return deviation.by_parameter[a] > deviation.by_parameter[b]; });
  fmt::print("{:<40} {}\n", "gradient of", "largest error");
  for (std::size_t i : order) fmt::print("{:<40} {:.3g}\n", parameters[i].name, deviation.by_parameter[i]);
}

/// What rounding explains; halves round every activation.
double tolerance_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return 1e-10;
    case DType::bf16:
      return 0.1;
    case DType::f16:
      return 0.02;
    default:
      return 1e-4;
  }
}

}  // namespace

int run_verify(Process& process, Arguments arguments) {
  Options options;
  process.agree([&] { options = parse(arguments); });
  RunConfig config = load_run_config(process, options.file, options.overrides);
  StepOptions step_options = step_options_of(config);
  if (!options.as_configured) step_options.dtype = DType::f64;
  if (step_options.dtype != config.training.dtype) config.device.products.clear();  // those are of another type
  const double tolerance = options.tolerance > 0 ? options.tolerance : tolerance_of(step_options.dtype);

  const MeshAxes mesh = make_mesh(mesh_shape_of(config), process.rank());
  process.set_place(coordinates(mesh));
  const std::unique_ptr<RankDevice> device = make_rank_device(process, config);
  TrainStep step = record_train_step(mesh, step_options, Tail::gradients);
  check_same_collectives(process, step.program);
  make_ready(process, *device, config, step, mesh, step_options);
  WatchedOps watched(process, *device);
  Groups groups(device->world(), mesh);
  ExecutorOptions executor_options = device->executor_options();
  executor_options.monitor = &watched;
  StepRunner runner(std::move(step), step_options, device->device(), groups.lookup(), executor_options);

  const SequenceReader read = random_sequences(step_options.seed, step_options.model.vocabulary);
  ReferenceStep reference;
  if (process.is_first()) {
    reference = take_reference_step(one_rank_options(step_options, static_cast<int>(config.parallel.dp)),
                                    *device->another(), kStepNumber, read);
  }
  share(process, reference, runner.step());

  runner.initialize();
  MeasuredCounts measured(runner.executor(), groups);
  runner.run(kStepNumber, {}, read);
  const CountsTable counts = compare_counts(closed_form_counts(symbols_of(mesh, step_options), mesh, Tail::gradients),
                                            program_counts(runner.step()), measured.counts());
  const std::vector<Parameter>& parameters = runner.step().parameters;
  const Deviation worst = largest_of(process.world(), deviation_from(reference, runner), parameters);
  const std::vector<std::int32_t> agreed = process.gather(static_cast<std::int32_t>(counts.agree));

  const bool has_updates = step_options.dtype == DType::f64;
  const double updates =
      has_updates ? compare_updates(process, *device, groups, executor_options, mesh, step_options, read) : 0;

  const bool steps_equal = worst.worst() <= tolerance && updates <= kUpdateTolerance;
  const auto differing = std::find(agreed.begin(), agreed.end(), 0);
  if (process.is_first()) {
    fmt::print("{} ranks against one, {}: loss {:.12g}\n", process.size(), name_of(step_options.dtype),
               reference.summary.loss);
    print_gradients(worst, parameters);
    fmt::print(
        "largest error: loss {:.3g}, gradient norm {:.3g} (relative); gradients {:.3g} of the largest entry, in {}\n",
        worst.loss, worst.norm, worst.gradient, worst.parameter);
    if (has_updates) fmt::print("weights after two updates: {:.3g} of the learning rate apart\n", updates);
    fmt::print("{}", counts.text);
    fmt::print("steps {} (tolerance {:.1g}); counts {}\n", steps_equal ? "equal" : "DIFFER", tolerance,
               differing == agreed.end() ? "equal on all ranks"
                                         : fmt::format("DIFFER on rank {}", differing - agreed.begin()));
  }
  return steps_equal && differing == agreed.end() ? 0 : 1;
}

}  // namespace annulus
