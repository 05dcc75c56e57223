#pragma once

#include <cstdint>
#include <vector>

#include "runtime/simulate/hardware_profile.h"

namespace annulus {

/// What of a rank's arena its caches still hold: of each part, when it was last touched, and how much was since.
class Reuse {
 public:
  /// Nothing has ever been touched.
  explicit Reuse(std::int64_t arena_bytes);

  /// How many of the bytes from `offset` on have left the caches at `now` (seconds of this step), by the profile.
  double far_bytes(std::int64_t offset, std::int64_t bytes, double now, const HardwareProfile& profile) const;
  void touch(std::int64_t offset, std::int64_t bytes, double now);
  /// A step that took so long has ended; the next begins at 0.
  void end_step(double seconds);

 private:
  struct Part {
    double seconds, bytes;  ///< of the last touch: when, and after how many bytes touched in all
  };

  std::int64_t part_bytes_;
  double touched_bytes_ = 0;  // what is touched twice counts twice
  std::vector<Part> parts_;
};

}  // namespace annulus
