#pragma once

#include <string>
#include <utility>
#include <vector>

namespace annulus {

/// What this program was made of, as (name, version): itself, its commit, compiler, build type, libraries. For the run
/// folder and `annulus info`.
std::vector<std::pair<std::string, std::string>> build_info();

}  // namespace annulus
