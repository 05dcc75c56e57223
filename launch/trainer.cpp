#include "launch/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>

#include "launch/build_info.h"
#include "model/analytic/of_step.h"
#include "model/huggingface.h"
#include "runtime/core/host_memory.h"
#include "runtime/core/random.h"

namespace annulus {
namespace {

constexpr std::int64_t kProbeEvery = 50;      // steps between two without overlap: what compute takes undisturbed
constexpr std::int64_t kFirstProbe = 2;       // the first step is slower than any other
constexpr double kSecondsBetweenLines = 0.5;  // of progress

LearningRateSchedule schedule_of(const RunConfig& config) {
  const OptimizerConfig& o = config.optimizer;
  return {.decay = o.schedule,
          .peak = o.learning_rate,
          .minimum = o.minimum_learning_rate,
          .warmup_steps = o.warmup_steps,
          .total_steps = config.training.steps,
          .decay_steps = o.decay_steps};
}

}  // namespace

Trainer::Trainer(Process& process, RunConfig config)
    : process_(process),
      config_(std::move(config)),
      mesh_(make_mesh(mesh_shape_of(config_), process.rank())),
      options_(step_options_of(config_)),
      device_(make_rank_device(process, config_)),
      groups_(device_->world(), mesh_),
      host_groups_(process.world(), mesh_),
      clock_(align_clock(process.world())) {
  process_.set_place(coordinates(mesh_));
  open_inputs();
  choose_profile();
  TrainStep step = plan();
  make_folder();
  prepare(std::move(step));
}

Trainer::~Trainer() = default;

void Trainer::open_inputs() {
  // Reading every token is one rank's work on each host.
  const auto check = process_.local_rank() == 0 ? DataSource::Check::every_token : DataSource::Check::headers;
  process_.agree([&] {
    std::vector<std::string> problems = problems_of(schedule_of(config_));
    if (!problems.empty()) throw ConfigError(problems);
    data_ = std::make_unique<DataSource>(config_, check);
    if (config_.training.evaluate_every > 0 && data_->validation_sequences() == 0) {
      throw ConfigError(
          "data.validation_fraction leaves no sequence to evaluate on; raise it, or give data.validation_file");
    }
    if (config_.training.initial_weights.empty()) return;
    initial_ = std::make_unique<SafetensorsReader>(config_.training.initial_weights);
    check_huggingface(*initial_, config_.model);
  });
}

void Trainer::choose_profile() {
  if (!config_.log.profile.empty()) {
    process_.agree([&] { profile_ = load_hardware_profile(config_.log.profile); });
    const std::vector<std::uint64_t> all = process_.gather(stream_id(to_json(profile_)));
    process_.agree([&] {
      if (all.front() != all[static_cast<std::size_t>(process_.rank())])
        throw ConfigError(
            fmt::format("log.profile={} is another file on this host than on that of rank 0; copy one to all hosts",
                        config_.log.profile));
    });
  } else {
    measure_profile();
  }
  device_->world().choose_transports(
      [profile = profile_](CollectiveKind kind, int ranks, int hosts, std::int64_t bytes) {
        return profile.transport_between_hosts(kind, ranks, hosts, static_cast<double>(bytes));
      });
}

void Trainer::measure_profile() {
  const double begin = now_seconds();
  profile_ = measured_profile(process_, *device_, CalibrationMode::quick);
  say(fmt::format("no log.profile: a short one was measured in {:.1f} s (annulus calibrate makes a better one)",
                  now_seconds() - begin));
}

TrainStep Trainer::plan() {
  TrainStep step = record_train_step(mesh_, options_);
  check_same_collectives(process_, step.program);
  const MemoryPlan memory = memory_plan_of(step.program, device_->device());
  MemoryNeed need = memory_need_of(step.program, step.parameters, memory);
  process_.agree([&] { prediction_ = predict_step(step.program, make_schedule(step.program), memory, profile_); });
  for (const double seconds : process_.gather(prediction_.step_seconds))  // ranks wait for the slowest
    prediction_.step_seconds = std::max(prediction_.step_seconds, seconds);
  process_.agree([&] {
    expectation_ = expectation_of(symbols_of(mesh_, options_), prediction_, profile_, options_.dtype, need.arena_bytes);
  });
  std::optional<EvaluateStep> evaluate;
  std::vector<const Program*> programs{&step.program};
  if (config_.training.evaluate_every > 0) {
    evaluate = record_evaluate_step(mesh_, options_);
    programs.push_back(&evaluate->program);
    add_evaluation(need, memory_need_of(evaluate->program, evaluate->parameters, device_->device()).arena_bytes);
  }
  products_ = device_->make_ready(need, profile_.device_reserve_bytes, programs);
  const auto mib = [](std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); };
  say(fmt::format("mesh tp {} x cp {} x dp {}, {} threads a rank; arena {:.1f} MiB a rank{}; peak: {} ({:.0f} GFLOP/s)",
                  config_.parallel.tp, config_.parallel.cp, config_.parallel.dp, device_->threads(),
                  mib(need.arena_bytes),
                  evaluate ? fmt::format(" and {:.1f} to evaluate", mib(need.evaluation_bytes)) : "",
                  profile_.peak_name, profile_.peak_flops_per_second / 1e9));
  if (config_.device.kind == DeviceKind::cpu && process_.crowded())
    say(fmt::format("{} ranks share fewer cores and take turns: predictions give each its own, and are too short",
                    process_.local_size()));
  return step;
}

void Trainer::prepare(TrainStep step) {
  watched_ = std::make_unique<WatchedOps>(process_, *device_);  // behind the last check: its ranks leave with a goodbye
  ExecutorOptions executor_options = device_->executor_options();
  executor_options.monitor = watched_.get();
  runner_ =
      std::make_unique<StepRunner>(std::move(step), options_, device_->device(), groups_.lookup(), executor_options);
  if (config_.training.evaluate_every > 0) {
    evaluator_ = std::make_unique<Evaluator>(record_evaluate_step(mesh_, options_), options_, device_->device(),
                                             groups_.lookup(), executor_options);
  }
  if (executor_options.shared_memory && process_.local_size() > 1 && !runner_->executor().shares_arena())
    say("the ranks of a host share no memory for their arenas (it was refused): transfers between them are copied");
  if (scales_loss(options_.dtype))
    loss_scaler_.emplace(config_.training.loss_scale, config_.training.loss_scale_interval);
  runner_->initialize();
  if (initial_) load_huggingface(*initial_, config_.model, runner_->step().parameters, runner_->executor());
  initial_.reset();

  Executor& executor = runner_->executor();
  std::vector<double> expected;
  for (const OpPrediction& op : prediction_.ops) expected.push_back(op.seconds);
  executor.set_expected_seconds(std::move(expected));
  ledger_ = std::make_unique<Ledger>(executor.program(), executor.schedule(), prediction_);
}

void Trainer::make_folder() {
  process_.agree([&] {
    if (!process_.is_first()) return;
    folder_ = std::make_unique<RunFolder>(config_.output.folder);
    if (config_.log.profile.empty()) {
      config_.log.profile = folder_->file("profile.json");
      save_hardware_profile(profile_, config_.log.profile);
    }
    if (!products_.empty()) {
      config_.device.products = folder_->file("products.json");
      write_file_atomically(config_.device.products, products_);
    }
    write_file_atomically(folder_->file("config.json"), to_json(config_));
    describe_run();
    metrics_ = std::make_unique<MetricsWriter>(folder_->metrics());
  });
}

void Trainer::describe_run() const {
  nlohmann::ordered_json run;
  for (const auto& [name, version] : build_info()) run["versions"][name] = version;
  run["hosts"] = process_.hosts();
  run["device"] = device_->device().description();
  run["threads_per_rank"] = device_->threads();
  run["data"] = nlohmann::ordered_json::parse(data_->describe());
  write_file_atomically(folder_->file("run.json"), run.dump(2) + "\n");
}

void Trainer::run() {
  watch_for_stop_signals();
  begun_seconds_ = now_seconds();
  std::int64_t step = 0;
  while (step < config_.training.steps && !stop_) {
    log(take_step(++step));
    if (evaluator_ && step % config_.training.evaluate_every == 0) evaluate(step);
    if (config_.training.export_every > 0 && step % config_.training.export_every == 0) export_weights(step);
  }
  finish(step);
}

StepReport Trainer::take_step(std::int64_t step) {
  const double begin = now_seconds();
  StepReport report;
  report.step = step;
  report.learning_rate = learning_rate(schedule_of(config_), step - 1);
  const OptimizerConfig& o = config_.optimizer;
  const std::int64_t updates = step - (loss_scaler_ ? loss_scaler_->skipped() : 0);
  StepHyper hyper{report.learning_rate, 1 - std::pow(o.beta1, updates), 1 - std::pow(o.beta2, updates)};
  if (loss_scaler_) hyper.loss_scale = report.loss_scale = loss_scaler_->scale();
  const Overlap overlap = step % kProbeEvery == kFirstProbe ? Overlap::off : Overlap::on;
  const StepTrace& trace = runner_->run(step, hyper, data_->training(step - 1), overlap);
  const Executor& executor = runner_->executor();
  const std::vector<double> last = last_arrivals(trace, executor.schedule(), host_groups().lookup(), clock_.seconds);
  report.summary = runner_->summary();
  if (loss_scaler_) {
    loss_scaler_->update(report.summary.gradient_norm);
    report.skipped_steps = loss_scaler_->skipped();
  }

  struct Mine {
    StepTotals totals;
    double seconds;
    std::int64_t peak_bytes, stop;
  };
  const double seconds = now_seconds() - begin;
  if (step == 1 || overlap == Overlap::off) peak_bytes_ = peak_resident_bytes();  // 10 ms a GB where pages are small
  const Mine mine{ledger_->add(trace, last, overlap), seconds, peak_bytes_, stop_signal_came()};
  std::vector<StepTotals> totals;
  for (const Mine& one : process_.gather(mine)) {
    totals.push_back(one.totals);
    report.seconds = std::max(report.seconds, one.seconds);
    report.process_peak_bytes = std::max(report.process_peak_bytes, one.peak_bytes);
    stop_ = stop_ || one.stop != 0;
  }
  report.totals = over_ranks(totals);
  return report;
}

void Trainer::log(const StepReport& report) {
  if (process_.is_first()) {
    metrics_->write(metrics_of(report, expectation_));
    const double now = now_seconds();
    const bool due =
        now - said_seconds_ >= kSecondsBetweenLines || report.step == 1 || report.step == config_.training.steps;
    if (due) {
      said_seconds_ = now;
      const double remaining = (now - begun_seconds_) / static_cast<double>(report.step) *
                               static_cast<double>(config_.training.steps - report.step);
      say(progress_line(report, expectation_, config_.training.steps, remaining));
    }
  }
  constexpr double kSmallestScale = 0x1p-16;
  const bool skipped = report.loss_scale > kSmallestScale;  // a norm that is not finite is a step that was left out
  if (!std::isfinite(report.summary.loss) || !(skipped || std::isfinite(report.summary.gradient_norm))) {
    const bool first = report.step == 1;  // of which the loss stands before any update
    throw AgreedError(fmt::format("step {}: loss {} and gradient norm {} are not finite; {}", report.step,
                                  report.summary.loss, report.summary.gradient_norm,
                                  first ? "before any update: look at training.initial_weights and model.initial_std, "
                                          "or use another training.dtype"
                                        : "lower optimizer.learning_rate, or raise optimizer.warmup_steps"));
  }
}

void Trainer::evaluate(std::int64_t step) {
  evaluator_->copy_weights(*runner_);
  const std::int64_t sequences =
      std::min(data_->validation_sequences(), config_.training.evaluate_batches * config_.batch.global_sequences);
  const double loss = evaluator_->loss(data_->validation(), sequences);
  if (!process_.is_first()) return;
  metrics_->write({{"step", step}, {"validation_loss", loss}, {"validation_perplexity", std::exp(loss)}});
  say(fmt::format("step {}  validation loss {:.4f}  perplexity {:.2f}  ({} sequences)", step, loss, std::exp(loss),
                  sequences));
}

void Trainer::export_weights(std::int64_t step) {
  if (step == exported_step_) return;
  const std::string path = process_.is_first() ? folder_->weights(step) : "";
  try {
    export_huggingface(path, config_.model, runner_->step().parameters, runner_->executor(), process_.world());
  } catch (const ConfigError& error) {  // which all ranks throw together
    throw AgreedConfigError(error.problems());
  }
  exported_step_ = step;
  say(fmt::format("wrote {}", path));
}

void Trainer::finish(std::int64_t steps_done) {
  if (evaluator_ && steps_done % config_.training.evaluate_every != 0) evaluate(steps_done);
  export_weights(steps_done);
  const std::vector<LedgerGroup> groups = ledger_->groups(process_.world());
  if (!process_.is_first()) return;
  write_file_atomically(folder_->file("ledger.json"), ledger_->json(groups));
  const double seconds = now_seconds() - begun_seconds_;
  if (stop_) say("told to stop: the run ends here");
  say(fmt::format("{} steps in {:.1f} s; one step, medians; of transfers means over ranks, else rank 0's:", steps_done,
                  seconds));
  say(ledger_table(groups));
  if (const std::int64_t taken = device_->taken_by_libraries(); taken > 0)
    say(fmt::format("NCCL and kernels' modules took {:.0f} MiB of the GPU beside the arena",
                    static_cast<double>(taken) / (1 << 20)));
  say(fmt::format("run folder: {}", folder_->path()));
}

void Trainer::say(const std::string& line) const {
  if (!process_.is_first()) return;
  fmt::print("{}\n", line);
  std::fflush(stdout);
}

}  // namespace annulus
