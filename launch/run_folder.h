#pragma once

#include <string>
#include <string_view>

#include "launch/run_config.h"

namespace annulus {

/// Where a run leaves what it makes (docs/run-folder.md). Used by the first rank alone.
class RunFolder {
 public:
  /// Makes the folder and those above it, and in it the file of metrics, which claims it: of runs that begin at once
  /// only one is given it. Throws ConfigError where it cannot be made or written, or holds another run.
  explicit RunFolder(std::string path);

  std::string file(std::string_view name) const { return path_ + "/" + std::string(name); }
  std::string metrics() const { return file("metrics.jsonl"); }
  const std::string& path() const { return path_; }
  /// The folder for the weights after `steps` steps.
  std::string weights(std::int64_t steps) const;

 private:
  std::string path_;
};

}  // namespace annulus
