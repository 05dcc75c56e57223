#include "launch/command.h"

namespace annulus {

const std::vector<Command>& commands() {
  static const std::vector<Command> table = {
      {"train", "Trains a model on all ranks of the job", run_train},
      {"verify", "Holds a step on this mesh against the same step on one rank, and its counts against the model",
       run_verify},
      {"evaluate", "Loss and perplexity of weights on a token file", run_evaluate},
      {"plan", "Memory, collectives and counts of a step on any mesh; its program", run_plan},
      {"tokenize", "Text files to a token file, training a tokenizer where asked to", run_tokenize},
      {"calibrate", "Measures the machine: a hardware profile for predictions", run_calibrate},
      {"info", "Versions, processors and memory; the configuration reference", run_info},
  };
  return table;
}

}  // namespace annulus
