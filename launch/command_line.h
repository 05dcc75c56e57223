#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace annulus {

using Arguments = std::span<const std::string>;

/// Thrown by CommandLine::parse where --help is among the arguments.
struct HelpRequested {
  std::string text;
};

/// The arguments of one command. What is declared points to where its value goes, which holds the default.
class CommandLine {
 public:
  CommandLine(std::string_view command, std::string_view description);
  ~CommandLine();
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;

  /// Arguments without a name, in the order of their declaration; required.
  void positional(const std::string& name, std::string& value, const std::string& doc);
  void option(const std::string& name, std::string& value, const std::string& doc);
  void option(const std::string& name, std::int64_t& value, const std::string& doc);
  void option(const std::string& name, double& value, const std::string& doc);
  /// May be given several times, one value each.
  void option(const std::string& name, std::vector<std::string>& values, const std::string& doc);
  void flag(const std::string& name, bool& value, const std::string& doc);
  /// CONFIG and --set, which every command on a run has.
  void configuration(std::string& file, std::vector<std::string>& overrides);

  /// Throws ConfigError where the arguments are not as declared, HelpRequested for --help.
  void parse(Arguments arguments);

 private:
  struct Parser;
  std::unique_ptr<Parser> parser_;
};

}  // namespace annulus
