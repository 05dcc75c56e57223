#pragma once

#include <string_view>
#include <variant>
#include <vector>

#include "launch/command_line.h"

namespace annulus {

class Process;

/// A command of one process, and one that all ranks of a job run together. Both return the exit code.
using SingleCommand = int (*)(Arguments);
using RankCommand = int (*)(Process&, Arguments);

struct Command {
  std::string_view name;
  std::string_view help;  ///< one line
  std::variant<SingleCommand, RankCommand> run;
};

/// Every command there is, in the order of the help.
const std::vector<Command>& commands();

int run_train(Process& process, Arguments arguments);
int run_verify(Process& process, Arguments arguments);
int run_evaluate(Process& process, Arguments arguments);
int run_plan(Arguments arguments);
int run_tokenize(Arguments arguments);
int run_calibrate(Process& process, Arguments arguments);
int run_info(Arguments arguments);

}  // namespace annulus
