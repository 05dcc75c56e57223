#include "launch/run_folder.h"

#include <fmt/format.h>

#include <filesystem>
#include <system_error>

#include "runtime/core/error.h"

namespace annulus {
namespace {

void make(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) throw ConfigError(fmt::format("output.folder={} cannot be made: {}; give another", path, error.message()));
}

}  // namespace

RunFolder::RunFolder(std::string path) : path_(std::move(path)) {
  make(path_);
  std::error_code error;
  const bool empty = std::filesystem::is_empty(path_, error);
  if (error)
    throw ConfigError(fmt::format("output.folder={} cannot be read: {}; give another", path_, error.message()));
  if (!empty)
    throw ConfigError(
        fmt::format("output.folder={} holds another run (or other files); give another, or remove it", path_));
}

std::string RunFolder::weights(std::int64_t steps) const {
  const std::string path = file(fmt::format("weights-{}", steps));
  make(path);
  return path;
}

}  // namespace annulus
