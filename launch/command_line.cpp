#include "launch/command_line.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "runtime/core/error.h"

namespace annulus {

struct CommandLine::Parser {
  CLI::App app;
  std::string command;
};

CommandLine::CommandLine(std::string_view command, std::string_view description)
    : parser_(new Parser{CLI::App(std::string(description)), std::string(command)}) {
  parser_->app.name(fmt::format("annulus {}", command));
}

CommandLine::~CommandLine() = default;

void CommandLine::positional(const std::string& name, std::string& value, const std::string& doc) {
  parser_->app.add_option(name, value, doc)->required()->type_name("");
}

void CommandLine::option(const std::string& name, std::string& value, const std::string& doc) {
  parser_->app.add_option(name, value, doc)->type_name("TEXT");
}

void CommandLine::option(const std::string& name, std::int64_t& value, const std::string& doc) {
  parser_->app.add_option(name, value, doc)->type_name("INTEGER")->capture_default_str();
}

void CommandLine::option(const std::string& name, double& value, const std::string& doc) {
  parser_->app.add_option(name, value, doc)->type_name("NUMBER")->capture_default_str();
}

void CommandLine::option(const std::string& name, std::vector<std::string>& values, const std::string& doc) {
  parser_->app.add_option(name, values, doc)->type_name("TEXT")->type_size(1)->allow_extra_args(false);
}

void CommandLine::flag(const std::string& name, bool& value, const std::string& doc) {
  parser_->app.add_flag(name, value, doc);
}

void CommandLine::configuration(std::string& file, std::vector<std::string>& overrides) {
  positional("CONFIG", file, "The run's configuration (docs/configuration.md)");
  parser_->app.add_option("--set", overrides, "Replaces a setting of the configuration; may be repeated")
      ->type_name("PATH=VALUE")
      ->type_size(1)
      ->allow_extra_args(false);
}

void CommandLine::parse(Arguments arguments) {
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());  // the order that CLI11 wants
  try {
    parser_->app.parse(reversed);
  } catch (const CLI::CallForHelp&) {
    throw HelpRequested{parser_->app.help()};
  } catch (const CLI::ParseError& error) {
    throw ConfigError(fmt::format("{}: {}; see annulus {} --help", parser_->command, error.what(), parser_->command));
  }
}

}  // namespace annulus
