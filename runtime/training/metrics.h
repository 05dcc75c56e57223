#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace annulus {

using MetricValue = std::variant<double, std::int64_t, bool, std::string>;
using Metric = std::pair<std::string, MetricValue>;

/// `metrics.jsonl`: one JSON object a line, keys in the order given, never rewritten. NaN and infinities become null,
/// which is what JSON has for them.
class MetricsWriter {
 public:
  /// Lines are appended to a file that is there already. Throws ConfigError where it cannot be written.
  explicit MetricsWriter(std::string path);
  ~MetricsWriter();
  MetricsWriter(const MetricsWriter&) = delete;
  MetricsWriter& operator=(const MetricsWriter&) = delete;

  /// Appends one line, visible to readers at once. Throws ConfigError (disk full, for one).
  void write(const std::vector<Metric>& metrics);

 private:
  std::string path_;
  int descriptor_ = -1;
};

/// One line of `metrics.jsonl`, without its end of line.
std::string metrics_line(const std::vector<Metric>& metrics);

}  // namespace annulus
