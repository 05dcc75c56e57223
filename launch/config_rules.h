#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "launch/run_config.h"

namespace annulus {

/// Fills in every 0 that stands for what follows from other settings. What does not divide is left for the rules.
void derive(RunConfig& config, std::int64_t ranks);

/// What settings must fulfil together. `is_sound` says of a path whether its own value is: a rule that reads others
/// does not speak. Returns the problems, as in `heads=10 cannot be split over tp=4 (10 % 4 = 2); use tp in {1, 2, 5,
/// 10}`.
std::vector<std::string> broken_rules(const RunConfig& config, std::int64_t ranks,
                                      const std::function<bool(std::string_view path)>& is_sound);

}  // namespace annulus
