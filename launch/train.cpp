#include <memory>

#include "launch/command.h"
#include "launch/trainer.h"

namespace annulus {
namespace {

struct Options {
  std::string file;
  std::vector<std::string> overrides;
  std::string resume;
};

Options parse(Arguments arguments) {
  Options options;
  CommandLine line("train", "Trains a model as the configuration says, on all ranks of the job.");
  line.configuration(options.file, options.overrides);
  line.option("--resume", options.resume, "Not there yet: runs cannot be resumed (see training.initial_weights)");
  line.parse(arguments);
  if (!options.resume.empty()) {
    throw ConfigError("--resume=" + options.resume +
                      ": this version keeps weights, not the optimizer's state, so that a run cannot be resumed; begin "
                      "a new one from "
                      "its weights with --set training.initial_weights=RUN/weights-STEPS");
  }
  return options;
}

}  // namespace

int run_train(Process& process, Arguments arguments) {
  Options options;
  process.agree([&] { options = parse(arguments); });
  auto trainer = std::make_unique<Trainer>(process, load_run_config(process, options.file, options.overrides));
  try {
    trainer->run();
  } catch (const Agreed&) {
    trainer.reset();  // here, not by unwinding: so its watchdog says goodbye
    throw;
  }
  return 0;
}

}  // namespace annulus
