#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace annulus {

enum class Decay : std::uint8_t { cosine, linear, constant_then_decay };

/// A learning rate that warms up linearly to `peak` and then falls to `minimum`.
struct LearningRateSchedule {
  Decay decay = Decay::cosine;
  double peak = 0;
  double minimum = 0;             ///< from step `total_steps` on
  std::int64_t warmup_steps = 0;  ///< the last of them has `peak`
  std::int64_t total_steps = 0;
  std::int64_t decay_steps = 0;  ///< constant_then_decay: the last steps, which fall linearly
};

/// What is wrong with a schedule, one message a problem; empty where nothing is.
std::vector<std::string> problems_of(const LearningRateSchedule& schedule);

/// The learning rate of step number `step` (from 0), with w = warmup_steps and s = step - w out of s_max = total_steps
/// - w: warm-up `peak (step + 1) / w`; cosine `minimum + (peak - minimum) (1 + cos(pi s / s_max)) / 2` (footnote 38 of
/// the notes, *corrected*: they print a quarter of the cosine); linear from peak to minimum over s_max;
/// constant_then_decay: peak, then linear to minimum over the last `decay_steps`.
double learning_rate(const LearningRateSchedule& schedule, std::int64_t step);

}  // namespace annulus
