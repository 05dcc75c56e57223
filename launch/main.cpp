#include <fmt/format.h>

#include <cstdio>
#include <string>
#include <vector>

#include "launch/build_info.h"
#include "launch/command.h"
#include "launch/cores.h"
#include "launch/process.h"
#include "runtime/core/error.h"

namespace annulus {
namespace {

constexpr int kFailed = 1;    // anything that is not the user's to fix
constexpr int kBadInput = 2;  // ConfigError

std::string usage() {
  std::string text = "Usage: annulus COMMAND [ARGUMENTS]\n       mpirun -n RANKS annulus COMMAND [ARGUMENTS]\n\n";
  for (const Command& command : commands()) text += fmt::format("  {:<10} {}\n", command.name, command.help);
  return text + "\nannulus COMMAND --help tells more.\n";
}

const Command& find_command(const std::string& name) {
  std::string names;
  for (const Command& command : commands()) {
    if (command.name == name) return command;
    names += (names.empty() ? "" : ", ") + std::string(command.name);
  }
  throw ConfigError(fmt::format("{} is no command; use one of {}", name, names));
}

void print_problems(const ConfigError& error) {
  for (const std::string& problem : error.problems()) fmt::print(stderr, "annulus: {}\n", problem);
}

int run_single(SingleCommand run, const std::string& name, Arguments arguments) {
  if (launch_environment().size > 1) {
    throw ConfigError(fmt::format("{} runs in one process; start it without mpirun", name));
  }
  return run(arguments);
}

/// What a rank does about errors: those that all have alike end the job in good order, any other ends it at once.
int run_ranks(RankCommand run, Arguments arguments) {
  Process process;
  try {
    return run(process, arguments);
  } catch (const HelpRequested& help) {  // from the arguments, which all ranks share
    if (process.is_first()) fmt::print("{}", help.text);
    return 0;
  } catch (const AgreedConfigError& error) {
    if (process.is_first()) print_problems(error);
    return kBadInput;
  } catch (const AgreedError& error) {
    if (process.is_first()) fmt::print(stderr, "annulus: {}\n", error.what());
    return kFailed;
  } catch (const ConfigError& error) {
    fmt::print(stderr, "{} {}\n", process.name(), error.what());
    std::fflush(stderr);
    process.end_job(kBadInput);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{} {}\n", process.name(), error.what());
    std::fflush(stderr);
    process.end_job(kFailed);
  }
}

int run(const std::vector<std::string>& arguments) {
  const std::string first = arguments.empty() ? "--help" : arguments[0];
  if (first == "--help" || first == "-h") throw HelpRequested{usage()};
  if (first == "--version") throw HelpRequested{fmt::format("annulus {}\n", build_info().front().second)};
  const Command& command = find_command(first);
  const Arguments rest = Arguments(arguments).subspan(1);
  if (const RankCommand* ranks = std::get_if<RankCommand>(&command.run)) return run_ranks(*ranks, rest);
  return run_single(std::get<SingleCommand>(command.run), first, rest);
}

}  // namespace
}  // namespace annulus

int main(int argc, char** argv) {
  annulus::restart_unbound(argv);
  // Before MPI is started only the first rank speaks and fails: mpirun ends a job as soon as any rank fails.
  const bool is_first = annulus::launch_environment().rank == 0;
  try {
    return annulus::run({argv + 1, argv + argc});
  } catch (const annulus::HelpRequested& help) {
    if (is_first) fmt::print("{}", help.text);
    return 0;
  } catch (const annulus::ConfigError& error) {
    if (!is_first) return 0;
    annulus::print_problems(error);
    return annulus::kBadInput;
  } catch (const std::exception& error) {
    if (!is_first) return 0;
    fmt::print(stderr, "annulus: {}\n", error.what());
    return annulus::kFailed;
  }
}
