#include "runtime/core/host_memory.h"

#include <sys/resource.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <vector>

#include "runtime/core/error.h"

namespace annulus {
namespace {

namespace fs = std::filesystem;

/// File names of one version of control groups.
struct Version {
  const char* filesystem;
  const char* controller;  ///< as in the second field of /proc/self/cgroup
  const char* limit;
  const char* usage;
  const char* droppable;  ///< key in memory.stat: page cache not used lately
};
constexpr Version kVersions[] = {
    {"cgroup", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"},
    {"cgroup2", "", "memory.max", "memory.current", "inactive_file"},
};

/// The number in a file; nothing for "max", an absent or an empty file.
std::optional<std::int64_t> number_in(const fs::path& path) {
  std::ifstream file(path);
  std::int64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

/// The number after `key` in a file of "key value" lines.
std::optional<std::int64_t> number_after(const fs::path& path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string word;
    std::int64_t value = 0;
    if (words >> word >> value && word == key) return value;
  }
  return std::nullopt;
}

/// What is left under the limit of one group.
std::optional<std::int64_t> left_in(const fs::path& group, const Version& version) {
  const auto limit = number_in(group / version.limit);
  const auto usage = number_in(group / version.usage);
  if (!limit || !usage) return std::nullopt;
  const std::int64_t droppable = number_after(group / "memory.stat", version.droppable).value_or(0);
  return std::max<std::int64_t>(0, *limit - std::max<std::int64_t>(0, *usage - droppable));
}

/// The process's group, as /proc/self/cgroup names it in lines `id:controllers:path`.
std::optional<std::string> group_of(const fs::path& root, const Version& version) {
  std::ifstream file(root / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    std::istringstream controllers(line.substr(first + 1, second - first - 1));
    std::string controller;
    bool found = *version.controller == '\0' && first + 1 == second;
    while (std::getline(controllers, controller, ',')) found = found || controller == version.controller;
    if (found) return line.substr(second + 1);
  }
  return std::nullopt;
}

struct Mount {
  std::string root;   ///< the group that is mounted
  std::string point;  ///< where
};

/// Mounts of a version, from /proc/self/mountinfo: `id parent device root point options ... - type source options`.
std::vector<Mount> mounts_of(const fs::path& root, const Version& version) {
  std::vector<Mount> mounts;
  std::ifstream file(root / "proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    const auto dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    std::istringstream before(line.substr(0, dash)), after(line.substr(dash + 3));
    std::string id, parent, device, type;
    Mount mount;
    if (before >> id >> parent >> device >> mount.root >> mount.point && after >> type && type == version.filesystem) {
      mounts.push_back(mount);
    }
  }
  return mounts;
}

/// Least of what is left in the process's group and in all groups around it, as far as they can be seen from here.
std::optional<std::int64_t> left_under(const fs::path& root, const Version& version) {
  const auto group = group_of(root, version);
  if (!group) return std::nullopt;
  std::optional<std::int64_t> least;
  for (const Mount& mount : mounts_of(root, version)) {
    const fs::path point = root / fs::path(mount.point).relative_path();
    fs::path below = fs::path(*group).relative_path();
    // A container often sees only its own group, mounted as if it were the outermost one.
    if (mount.root != "/") below = fs::path(*group).lexically_relative(mount.root);
    if (below.empty() || *below.begin() == ".." || !fs::exists(point / below)) below = ".";
    for (fs::path here = below;; here = here.parent_path()) {
      if (const auto left = left_in(point / here, version)) least = std::min(*left, least.value_or(*left));
      if (here.empty() || here == ".") break;
    }
  }
  return least;
}

}  // namespace

std::int64_t available_memory_bytes(const std::string& root) {
  const fs::path base(root);
  std::optional<std::int64_t> least;
  if (const auto kibibytes = number_after(base / "proc/meminfo", "MemAvailable:")) least = *kibibytes * 1024;
  for (const Version& version : kVersions) {
    if (const auto left = left_under(base, version)) least = std::min(*left, least.value_or(*left));
  }
  if (!least)
    throw DeviceError("the memory available is unknown: neither " + (base / "proc/meminfo").string() +
                      " nor a control group says it; mount /proc");
  return *least;
}

std::int64_t peak_resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const fs::path now = "/proc/self/smaps_rollup";
  const std::int64_t resident = number_after(now, "Rss:").value_or(0),
                     share = number_after(now, "Pss:").value_or(resident);
  return (std::int64_t{usage.ru_maxrss} - (resident - share)) * 1024;  // Linux counts in KiB
}

}  // namespace annulus
