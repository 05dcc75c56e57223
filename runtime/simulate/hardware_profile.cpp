#include "runtime/simulate/hardware_profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>

#include "runtime/core/error.h"
#include "runtime/simulate/collective_cost.h"

namespace annulus {
namespace {

void check_points(const std::vector<std::pair<double, double>>& points, std::size_t fewest, std::string_view field) {
  if (points.size() < fewest) {
    throw ConfigError(fmt::format("{} has {} points; measure at least {}", field, points.size(), fewest));
  }
  for (std::size_t i = 0; i < points.size(); ++i) {
    const auto& [size, value] = points[i];
    if (!(size > 0 && value > 0) || !std::isfinite(size) || !std::isfinite(value)) {
      throw ConfigError(fmt::format("{}: point {} is ({}, {}); both must be positive", field, i, size, value));
    }
    if (i > 0 && size <= points[i - 1].first) {
      throw ConfigError(fmt::format("{}: sizes must ascend, but {} follows {}", field, size, points[i - 1].first));
    }
  }
}

/// The first point beyond `size`, and never the first of all.
std::size_t upper_point(const std::vector<std::pair<double, double>>& points, double size) {
  std::size_t i = 1;
  while (i + 1 < points.size() && points[i].first < size) ++i;
  return i;
}

/// FLOPs over the rate at `size`.
double scaled_seconds(const std::map<DType, RateCurve>& curves, DType dtype, double flops, double size,
                      std::string_view field) {
  if (flops <= 0) return 0;
  if (const auto found = curves.find(dtype); found != curves.end()) return flops / found->second.rate(size);
  const auto base = curves.find(DType::f32);
  if (base == curves.end()) throw InternalError(fmt::format("hardware profile: {} lacks f32", field));
  return flops / base->second.rate(size) * static_cast<double>(size_of(dtype)) /
         static_cast<double>(size_of(DType::f32));
}

/// Seconds of a collective by what was measured of perhaps another: at the same bytes on the wire, plus the difference
/// in steps times the latency of a step.
double seconds_by(const TransferCurve& measured, const CollectiveKey& key, CollectiveKind kind, int group_size,
                  double payload_bytes) {
  const double same_wire_bytes = wire_bytes(kind, group_size, payload_bytes) / wire_bytes(key.kind, key.ranks, 1);
  const int measured_steps = ring_steps(key.kind, key.ranks), steps = ring_steps(kind, group_size);
  const double step_seconds = measured.latency_seconds() / measured_steps;
  return std::max(measured.seconds(same_wire_bytes) + (steps - measured_steps) * step_seconds, steps * step_seconds);
}

}  // namespace

RateCurve::RateCurve(Points points, std::string_view field) : points_(std::move(points)) {
  check_points(points_, 1, field);
}

double RateCurve::rate(double size) const {
  if (points_.empty()) throw InternalError("rate of an empty curve");
  if (size <= points_.front().first) return points_.front().second;
  if (size >= points_.back().first) return points_.back().second;
  const std::size_t i = upper_point(points_, size);
  const auto& [size0, rate0] = points_[i - 1];
  const auto& [size1, rate1] = points_[i];
  const double share = std::log(size / size0) / std::log(size1 / size0);
  return std::exp(std::log(rate0) + share * std::log(rate1 / rate0));
}

double RateCurve::seconds(double size) const { return size > 0 ? size / rate(size) : 0; }

TransferCurve::TransferCurve(Points points, std::string_view field) : points_(std::move(points)) {
  check_points(points_, 2, field);
  if (points_.back().second <= points_.front().second) {
    throw ConfigError(fmt::format("{}: {} bytes take no longer than {}; measure longer messages", field,
                                  points_.back().first, points_.front().first));
  }
}

double TransferCurve::seconds(double payload_bytes) const {
  if (points_.empty()) throw InternalError("seconds of an empty transfer curve");
  const auto& [first_bytes, first_seconds] = points_.front();
  const auto& [last_bytes, last_seconds] = points_.back();
  if (payload_bytes <= first_bytes) return first_seconds;
  if (payload_bytes >= last_bytes) {
    const double seconds_per_byte = (last_seconds - first_seconds) / (last_bytes - first_bytes);
    return last_seconds + (payload_bytes - last_bytes) * seconds_per_byte;
  }
  const std::size_t i = upper_point(points_, payload_bytes);
  const auto& [bytes0, seconds0] = points_[i - 1];
  const auto& [bytes1, seconds1] = points_[i];
  return seconds0 + (payload_bytes - bytes0) * (seconds1 - seconds0) / (bytes1 - bytes0);
}

double HardwareProfile::product_seconds(DType dtype, double flops, double largest_matrix_bytes) const {
  return scaled_seconds(products, dtype, flops, flops, "products") +
         (product_bandwidth > 0 ? largest_matrix_bytes / product_bandwidth : 0);
}

double HardwareProfile::attention_forward_seconds(DType dtype, double flops, double pairs,
                                                  double keys_per_query) const {
  return scaled_seconds(attention_forward, dtype, flops, keys_per_query, "attention_forward") +
         pairs * attention_forward_pair_seconds;
}

double HardwareProfile::attention_backward_seconds(DType dtype, double flops, double pairs,
                                                   double keys_per_query) const {
  return scaled_seconds(attention_backward, dtype, flops, keys_per_query, "attention_backward") +
         pairs * attention_backward_pair_seconds;
}

double HardwareProfile::pass_seconds(std::string_view op_kind, double bytes) const {
  const auto found = kernels.find(std::string(op_kind));
  return (found != kernels.end() ? found->second : memory).seconds(bytes);
}

double HardwareProfile::far_share(double bytes_since, double seconds_since) const {
  double near = 0, far = 0, now = 0;  // seconds of a byte: at best, at worst, and of this memory
  const auto meet = [&](const RateCurve& curve, double since) {
    if (curve.empty()) return;
    now = std::max(now, 1 / curve.rate(since));
    for (const auto& point : curve.points()) {
      near = near == 0 ? 1 / point.second : std::min(near, 1 / point.second);
      far = std::max(far, 1 / point.second);
    }
  };
  meet(after_bytes, bytes_since);
  meet(after_seconds, seconds_since);
  return far > near ? (now - near) / (far - near) : 0;
}

double HardwareProfile::far_seconds(std::string_view op_kind, double far_bytes) const {
  auto found = far_seconds_per_byte.find(std::string(op_kind));
  if (found == far_seconds_per_byte.end()) found = far_seconds_per_byte.find("add");
  return found != far_seconds_per_byte.end() ? far_bytes * found->second : 0;
}

OverlapCost HardwareProfile::overlap_cost(double alone_seconds) const {
  if (overlap.empty()) return {alone_seconds, alone_seconds, 0};
  const auto above = std::find_if(overlap.begin(), overlap.end(),
                                  [&](const OverlapCost& cost) { return cost.alone_seconds >= alone_seconds; });
  const OverlapCost& first = overlap.front();
  if (above == overlap.begin())
    return {alone_seconds, alone_seconds + first.beside_seconds - first.alone_seconds,
            first.lost_seconds * alone_seconds / first.alone_seconds};
  const OverlapCost& below = *(above - 1);
  if (above == overlap.end()) {
    const double times = alone_seconds / below.alone_seconds;
    return {alone_seconds, times * below.beside_seconds, times * below.lost_seconds};
  }
  const double share = (alone_seconds - below.alone_seconds) / (above->alone_seconds - below.alone_seconds);
  return {alone_seconds, std::lerp(below.beside_seconds, above->beside_seconds, share),
          std::lerp(below.lost_seconds, above->lost_seconds, share)};
}

std::string_view name_of(Operands operands) { return operands == Operands::apart ? "apart" : "in_place"; }

double HardwareProfile::collective_seconds(CollectiveKind kind, int group_size, double payload_bytes, int hosts,
                                           Operands operands) const {
  if (group_size == 1) return 0;
  if (collectives.empty()) {
    throw ConfigError(
        fmt::format("hardware profile '{}' holds no collectives, but a group of {} ranks needs them; run mpirun -n {} "
                    "annulus calibrate",
                    name, group_size, group_size));
  }
  const auto distance = [&](const auto& entry) {
    const CollectiveKey& key = entry.first;
    const double sizes = std::abs(std::log2(static_cast<double>(group_size) / key.ranks));
    return std::tuple(key.kind == kind ? 0 : 1, (key.hosts > 1) == (hosts > 1) ? 0 : 1, sizes,
                      std::abs(key.hosts - hosts), key.operands == operands ? 0 : 1);
  };
  const auto nearest = std::min_element(collectives.begin(), collectives.end(),
                                        [&](const auto& a, const auto& b) { return distance(a) < distance(b); });
  std::optional<double> fastest;
  for (const Transport transport : kTransports) {
    CollectiveKey key = nearest->first;
    key.transport = transport;
    const auto found = collectives.find(key);
    if (found == collectives.end()) continue;
    const double seconds = seconds_by(found->second, key, kind, group_size, payload_bytes);
    fastest = std::min(fastest.value_or(seconds), seconds);
  }
  return *fastest;
}

Transport HardwareProfile::transport_between_hosts(CollectiveKind kind, int group_size, int hosts,
                                                   double payload_bytes) const {
  const auto flat = collectives.find({kind, group_size, hosts, Transport::messages});
  const auto staged = collectives.find({kind, group_size, hosts, Transport::hierarchical});
  if (flat == collectives.end() || staged == collectives.end()) return Transport::hierarchical;
  return flat->second.seconds(payload_bytes) < staged->second.seconds(payload_bytes) ? Transport::messages
                                                                                     : Transport::hierarchical;
}

}  // namespace annulus
