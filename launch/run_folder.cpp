#include "launch/run_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "runtime/core/error.h"

namespace annulus {
namespace {

void require(const std::error_code& error, const std::string& path, const char* action) {
  if (error)
    throw ConfigError(fmt::format("output.folder={} cannot be {}: {}; give another", path, action, error.message()));
}

}  // namespace

RunFolder::RunFolder(std::string path) : path_(std::move(path)) {
  std::error_code error;
  std::filesystem::create_directories(path_, error);
  require(error, path_, "made");
  const bool empty = std::filesystem::is_empty(path_, error);
  require(error, path_, "read");
  const int claim = empty ? ::open(metrics().c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666) : -1;
  if (claim >= 0) {
    ::close(claim);
  } else if (empty && errno != EEXIST) {
    require(std::error_code(errno, std::generic_category()), path_, "written");
  } else {
    throw ConfigError(
        fmt::format("output.folder={} holds another run (or other files); give another, or remove it", path_));
  }
}

std::string RunFolder::weights(std::int64_t steps) const { return file(fmt::format("weights-{}", steps)); }

}  // namespace annulus
