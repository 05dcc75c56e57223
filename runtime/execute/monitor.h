#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace annulus {

/// What a rank whose device takes orders is in, as the device itself tells it.
struct Activity {
  std::uint64_t sequence = 0;   ///< of the op, in the order that all ranks share, from 0
  bool busy = false;            ///< within a step
  std::string what;             ///< the op
  double expected_seconds = 0;  ///< as in OpMonitor::begin
  int lane = 0;                 ///< in which the op is a collective; 0: none is under way
  /// By lane from 1, one more than the sequence of the newest collective that this rank has begun; 0 before the first.
  std::vector<std::uint64_t> begun;
};

/// Told which op a rank is in, so that a hang can be named. Calls of `begin` and `end` cost two stores.
class OpMonitor {
 public:
  virtual ~OpMonitor() = default;
  /// `what` stays valid while the monitor does; `expected_seconds` is the model's prediction, 0 if there is none.
  virtual void begin(std::uint64_t sequence, const char* what, double expected_seconds) = 0;
  virtual void end() = 0;
  /// From now on `activity` is asked instead, from any thread; null: `begin` and `end` tell again.
  virtual void watch(std::function<Activity()> activity) = 0;
};

}  // namespace annulus
