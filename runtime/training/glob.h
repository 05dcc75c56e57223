#pragma once

#include <span>
#include <string>
#include <vector>

namespace annulus {

/// The regular files that match any of `patterns`, sorted by canonical path, each file once whatever names it has.
/// Within a name `*`, `?` and `[...]`, as in a shell (hidden files are matched by a leading dot only); `**` is any
/// number of folders, none included, and follows no symbolic links. Throws ConfigError naming every pattern that
/// matches nothing.
std::vector<std::string> expand_globs(std::span<const std::string> patterns);

}  // namespace annulus
