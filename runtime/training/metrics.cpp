#include "runtime/training/metrics.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <system_error>

#include "runtime/core/error.h"

namespace annulus {
namespace {

[[noreturn]] void fail(const std::string& path, int code) {
  throw ConfigError(fmt::format("{}: cannot be written: {}; give an output folder that can be written and has space",
                                path, std::generic_category().message(code)));
}

}  // namespace

std::string metrics_line(const std::vector<Metric>& metrics) {
  nlohmann::ordered_json line = nlohmann::ordered_json::object();
  for (const auto& [key, value] : metrics) {
    std::visit([&, &name = key](const auto& known) { line[name] = known; }, value);
  }
  return line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

MetricsWriter::MetricsWriter(std::string path) : path_(std::move(path)) {
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (descriptor_ < 0) fail(path_, errno);
}

MetricsWriter::~MetricsWriter() { ::close(descriptor_); }

void MetricsWriter::write(const std::vector<Metric>& metrics) {
  // One call of the kernel a line, unbuffered: a reader, or a crash, sees whole lines.
  std::string line = metrics_line(metrics) + '\n';
  for (std::string_view rest = line; !rest.empty();) {
    const ssize_t written = ::write(descriptor_, rest.data(), rest.size());
    if (written < 0 && errno != EINTR) fail(path_, errno);
    if (written > 0) rest.remove_prefix(static_cast<std::size_t>(written));
  }
}

}  // namespace annulus
