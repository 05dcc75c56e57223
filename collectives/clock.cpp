#include "collectives/clock.h"

#include <chrono>
#include <limits>
#include <memory>

namespace annulus {
namespace {

void answer(Communicator& pair, int peer, int exchanges) {
  for (int i = 0; i < exchanges; ++i) {
    double time = 0;
    wait(pair.recv(&time, 1, DType::f64, peer));
    time = steady_seconds();
    wait(pair.send(&time, 1, DType::f64, peer));
  }
}

ClockOffset ask(Communicator& pair, int exchanges) {
  ClockOffset best{0, std::numeric_limits<double>::max()};
  for (int i = 0; i < exchanges; ++i) {
    const double begin = steady_seconds();
    double time = begin;
    wait(pair.send(&time, 1, DType::f64, 0));
    wait(pair.recv(&time, 1, DType::f64, 0));
    const double end = steady_seconds();
    if ((end - begin) / 2 < best.error_seconds) best = {time - (begin + end) / 2, (end - begin) / 2};
  }
  return best;
}

}  // namespace

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

ClockOffset align_clock(Communicator& world, int exchanges) {
  const std::unique_ptr<Communicator> group = world.split(0, world.rank());  // with counters of its own
  ClockOffset offset;
  if (group->rank() > 0) offset = ask(*group, exchanges);
  for (int peer = 1; group->rank() == 0 && peer < group->size(); ++peer) answer(*group, peer, exchanges);
  return offset;
}

}  // namespace annulus
