#include "runtime/core/error.h"

namespace annulus {
namespace {

std::string joined(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += (text.empty() ? "" : "\n") + line;
  return text;
}

}  // namespace

ConfigError::ConfigError(std::string problem) : ConfigError(std::vector<std::string>{std::move(problem)}) {}
ConfigError::ConfigError(std::vector<std::string> problems) : Error(joined(problems)), problems_(std::move(problems)) {}

}  // namespace annulus
