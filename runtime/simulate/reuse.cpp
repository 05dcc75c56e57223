#include "runtime/simulate/reuse.h"

#include <algorithm>
#include <limits>

#include "runtime/program/memory_plan.h"

namespace annulus {
namespace {

constexpr std::int64_t kMostParts = 16384, kSmallestPart = MemoryPlan::kAlignment;

}  // namespace

Reuse::Reuse(std::int64_t arena_bytes) : part_bytes_(std::max(kSmallestPart, arena_bytes / kMostParts + 1)) {
  constexpr double kNever = -std::numeric_limits<double>::infinity();
  parts_.assign(static_cast<std::size_t>(arena_bytes / part_bytes_ + 1), {kNever, kNever});
}

double Reuse::far_bytes(std::int64_t offset, std::int64_t bytes, double now, const HardwareProfile& profile) const {
  double far = 0;
  for (std::int64_t at = offset; at < offset + bytes;) {
    const std::int64_t part = at / part_bytes_, end = std::min((part + 1) * part_bytes_, offset + bytes);
    const Part& last = parts_[static_cast<std::size_t>(part)];
    far += static_cast<double>(end - at) * profile.far_share(touched_bytes_ - last.bytes, now - last.seconds);
    at = end;
  }
  return far;
}

void Reuse::touch(std::int64_t offset, std::int64_t bytes, double now) {
  touched_bytes_ += static_cast<double>(bytes);
  for (std::int64_t part = offset / part_bytes_; part * part_bytes_ < offset + bytes; ++part)
    parts_[static_cast<std::size_t>(part)] = {now, touched_bytes_};
}

void Reuse::end_step(double seconds) {
  for (Part& part : parts_) part.seconds -= seconds;
}

}  // namespace annulus
