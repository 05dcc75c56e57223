#pragma once

#include <memory>
#include <optional>
#include <string>

#include "collectives/clock.h"
#include "launch/data_source.h"
#include "launch/evaluation.h"
#include "launch/rank_device.h"
#include "launch/rank_setup.h"
#include "launch/run_folder.h"
#include "launch/step_report.h"
#include "runtime/training/loss_scale.h"
#include "runtime/training/safetensors.h"

namespace annulus {

/// One rank of a training run, from the configuration to the last weights.
class Trainer {
 public:
  /// Checks everything that can be checked before the first step, makes the run folder and the weights. Collective;
  /// throws AgreedConfigError for what the user can mend.
  Trainer(Process& process, RunConfig config);
  ~Trainer();

  /// Trains, logs, evaluates, exports. Ends early, in good order, where a rank is told to stop (SIGTERM, SIGINT).
  void run();

 private:
  void open_inputs();
  void choose_profile();
  void measure_profile();
  /// Records the step, predicts it, and sees to it that it fits.
  TrainStep plan();
  void prepare(TrainStep step);
  void make_folder();
  void describe_run() const;

  StepReport take_step(std::int64_t step);
  void log(const StepReport& report);
  void evaluate(std::int64_t step);
  void export_weights(std::int64_t step);
  void finish(std::int64_t steps_done);
  /// Of buffers in the hosts' memory.
  Groups& host_groups() { return &device_->world() == &process_.world() ? groups_ : host_groups_; }
  /// Prints on the first rank.
  void say(const std::string& line) const;

  Process& process_;
  RunConfig config_;
  MeshAxes mesh_;
  StepOptions options_;
  std::unique_ptr<RankDevice> device_;
  Groups groups_;       ///< over the devices' memory: what programs call
  Groups host_groups_;  ///< over the hosts', where that is another
  ClockOffset clock_;
  HardwareProfile profile_;
  std::unique_ptr<DataSource> data_;
  std::unique_ptr<SafetensorsReader> initial_;
  std::unique_ptr<RunFolder> folder_;       ///< on the first rank
  std::unique_ptr<MetricsWriter> metrics_;  ///< on the first rank
  std::unique_ptr<WatchedOps> watched_;
  std::unique_ptr<StepRunner> runner_;
  std::unique_ptr<Evaluator> evaluator_;  ///< where the run evaluates
  std::unique_ptr<Ledger> ledger_;
  std::optional<LossScaler> loss_scaler_;  ///< of f16
  StepPrediction prediction_;
  std::string products_;  ///< algorithms that were chosen for them
  StepExpectation expectation_;
  double begun_seconds_ = 0, said_seconds_ = 0;
  std::int64_t exported_step_ = -1;
  std::int64_t peak_bytes_ = 0;  // as of the last look
  bool stop_ = false;
};

}  // namespace annulus
