#include "runtime/training/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace annulus {
namespace {

/// The share of the way from minimum to peak that is left, where `done` of it (0 to 1) is over.
double left_after(Decay decay, double done) {
  return decay == Decay::cosine ? 0.5 * (1 + std::cos(std::numbers::pi * done)) : 1 - done;
}

}  // namespace

std::vector<std::string> problems_of(const LearningRateSchedule& schedule) {
  std::vector<std::string> problems;
  const auto require = [&](bool holds, std::string problem) {
    if (!holds) problems.push_back(std::move(problem));
  };
  require(std::isfinite(schedule.peak) && schedule.peak >= 0,
          fmt::format("learning rate: peak={} is not a number of at least 0; typical are 1e-4 to 1e-3", schedule.peak));
  require(schedule.minimum >= 0 && schedule.minimum <= schedule.peak,
          fmt::format("learning rate: minimum={} is not between 0 and peak={}; a tenth of the peak is usual",
                      schedule.minimum, schedule.peak));
  require(schedule.total_steps >= 1,
          fmt::format("learning rate: total_steps={} is less than 1; give the number of steps", schedule.total_steps));
  require(schedule.warmup_steps >= 0 && schedule.warmup_steps <= schedule.total_steps,
          fmt::format("learning rate: warmup_steps={} is not between 0 and total_steps={}; shorten the warm-up",
                      schedule.warmup_steps, schedule.total_steps));
  const std::int64_t most = schedule.total_steps - schedule.warmup_steps;
  require(schedule.decay != Decay::constant_then_decay || (schedule.decay_steps >= 0 && schedule.decay_steps <= most),
          fmt::format(
              "learning rate: decay_steps={} is not between 0 and total_steps - warmup_steps = {}; shorten the decay",
              schedule.decay_steps, most));
  return problems;
}

double learning_rate(const LearningRateSchedule& schedule, std::int64_t step) {
  if (step >= schedule.total_steps) return schedule.minimum;
  if (step < schedule.warmup_steps) {
    return schedule.peak * static_cast<double>(step + 1) / static_cast<double>(schedule.warmup_steps);
  }
  const std::int64_t steps = schedule.decay == Decay::constant_then_decay
                                 ? schedule.decay_steps
                                 : schedule.total_steps - schedule.warmup_steps;
  const std::int64_t passed = std::max<std::int64_t>(0, step - (schedule.total_steps - steps));
  const double done = passed == 0 ? 0 : static_cast<double>(passed) / static_cast<double>(steps);
  return schedule.minimum + (schedule.peak - schedule.minimum) * left_after(schedule.decay, done);
}

}  // namespace annulus
