#include "runtime/training/glob.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <filesystem>
#include <map>
#include <system_error>

#include "runtime/core/error.h"

namespace annulus {
namespace {

namespace fs = std::filesystem;

bool is_pattern(const std::string& component) { return component.find_first_of("*?[\\") != std::string::npos; }

bool matches(const std::string& pattern, const std::string& name) {
  return ::fnmatch(pattern.c_str(), name.c_str(), FNM_PERIOD) == 0;
}

/// Folders that may not be read are passed over, as a shell does.
std::vector<fs::directory_entry> entries_of(const fs::path& folder) {
  std::error_code ignored;
  std::vector<fs::directory_entry> entries;
  for (fs::directory_iterator entry(folder.empty() ? "." : folder, ignored), end; !ignored && entry != end;
       entry.increment(ignored)) {
    entries.push_back(*entry);
  }
  return entries;
}

/// One pattern, taken apart at its slashes.
class Matcher {
 public:
  explicit Matcher(const fs::path& pattern, std::map<fs::path, std::string>& found) : found_(found) {
    for (const fs::path& component : pattern.relative_path()) components_.push_back(component.string());
    if (!components_.empty() && components_.back() == "**") components_.push_back("*");
    walk(pattern.root_path(), 0);
  }
  std::int64_t matched() const { return matched_; }

 private:
  void walk(const fs::path& at, std::size_t index) {
    if (index == components_.size()) return add(at);
    const std::string& component = components_[index];
    std::error_code ignored;
    if (component == "**") {
      walk(at, index + 1);
      for (const fs::directory_entry& entry : entries_of(at)) {
        const std::string name = entry.path().filename().string();
        if (name[0] != '.' && entry.is_directory(ignored) && !entry.is_symlink(ignored)) walk(at / name, index);
      }
    } else if (!is_pattern(component)) {
      if (fs::exists(at / component, ignored)) walk(at / component, index + 1);
    } else {
      for (const fs::directory_entry& entry : entries_of(at)) {
        const std::string name = entry.path().filename().string();
        if (matches(component, name)) walk(at / name, index + 1);
      }
    }
  }

  void add(const fs::path& path) {
    std::error_code problem;
    if (!fs::is_regular_file(path, problem)) return;
    const fs::path canonical = fs::canonical(path, problem);
    if (problem) return;
    ++matched_;
    found_.emplace(canonical, path.string());
  }

  std::map<fs::path, std::string>& found_;
  std::vector<std::string> components_;
  std::int64_t matched_ = 0;
};

}  // namespace

std::vector<std::string> expand_globs(std::span<const std::string> patterns) {
  std::map<fs::path, std::string> found;
  std::vector<std::string> problems;
  if (patterns.empty())
    problems.push_back("no text files are named; give at least one path or glob, as in 'texts/**/*.txt'");
  for (const std::string& pattern : patterns) {
    if (Matcher(pattern, found).matched() > 0) continue;
    std::error_code ignored;
    problems.push_back(
        fs::is_directory(pattern, ignored)
            ? fmt::format("'{0}' is a folder, and files are wanted; use '{0}/**' for all files in it", pattern)
            : fmt::format("'{}' matches no file; check the path, and quote the glob so that the shell "
                          "leaves it alone",
                          pattern));
  }
  if (!problems.empty()) throw ConfigError(problems);
  std::vector<std::string> files;
  for (const auto& [canonical, path] : found) files.push_back(path);
  return files;
}

}  // namespace annulus
