#include "runtime/execute/calibration.h"

#include <algorithm>

#include "runtime/execute/calibration_bench.h"

namespace annulus {
namespace {

/// How much is measured.
struct Effort {
  double op_budget = 0, transfer_budget = 0;  ///< seconds of each point
  double largest_product = 0;                 ///< FLOPs
  std::vector<std::int64_t> pass_bytes;
  std::vector<std::int64_t> message_bytes;
  std::vector<DType> dtypes;
  std::int64_t pool_bytes = 0;
};

constexpr std::int64_t kKiB = 1024, kMiB = 1024 * kKiB;

Effort effort_of(CalibrationMode mode) {
  if (mode == CalibrationMode::quick)
    return {.op_budget = 0.01,
            .transfer_budget = 0.02,
            .largest_product = 2e9,
            .pass_bytes = {64 * kKiB, kMiB, 8 * kMiB},
            .message_bytes = {8, 4 * kKiB, 64 * kKiB, 512 * kKiB, 4 * kMiB},
            .dtypes = {DType::f32},
            .pool_bytes = 144 * kMiB};
  return {.op_budget = 0.04,
          .transfer_budget = 0.06,
          .largest_product = 1e11,
          .pass_bytes = {16 * kKiB, 64 * kKiB, 256 * kKiB, kMiB, 4 * kMiB, 16 * kMiB},
          .message_bytes = {8, 512, 4 * kKiB, 32 * kKiB, 128 * kKiB, 512 * kKiB, 2 * kMiB, 8 * kMiB, 64 * kMiB},
          .dtypes = {DType::f32, DType::f64},
          .pool_bytes = 192 * kMiB};
}

/// Sizes of linear layers as transformers have them: tokens, features in, features out; by ascending work.
struct LinearSizes {
  std::int64_t rows, in, out;
  double flops() const { return 2.0 * static_cast<double>(rows * in * out); }
};
constexpr LinearSizes kLinears[] = {
    {64, 64, 128},    {128, 128, 256},  {256, 192, 384},   {256, 256, 768},    {512, 384, 768},
    {512, 384, 1536}, {512, 768, 2304}, {1024, 768, 3072}, {2048, 1024, 4096},
};

struct AttentionSizes {
  std::int64_t sequences, length, heads;
};
constexpr AttentionSizes kAttentions[] = {{1, 32, 2},  {1, 128, 2}, {2, 256, 2},
                                          {4, 256, 6}, {2, 512, 6}, {1, 1024, 12}};

class Calibration {
 public:
  Calibration(Device& device, Communicator& world, const CalibrationOptions& options)
      : world_(world),
        transfers_(options.transfers == nullptr ? world : *options.transfers),
        effort_(effort_of(options.mode)),
        bench_(device, world, options.progress, options.shared_memory, effort_.pool_bytes) {
    profile_.device = device.description();
    profile_.peak_name = "SGEMM ceiling of " + options.processor;
    profile_.name =
        std::string(options.mode == CalibrationMode::quick ? "first-run default (quick calibration)" : "calibration") +
        " of " + std::to_string(world.size()) + (world.size() == 1 ? " rank, " : " ranks, each ") + options.processor;
  }

  HardwareProfile run() {
    profile_.op_overhead_seconds = bench_.op_seconds(smallest_case(), effort_.op_budget);
    for (DType dtype : effort_.dtypes) {
      measure_products(dtype);
      measure_attention(dtype);
    }
    measure_passes();
    for (int size = 2; size <= world_.size(); ++size)
      if (world_.size() % size == 0) measure_split(world_.rank() / size);
    if (world_.hosts() > 1) profile_.ranks_per_host = world_.size() / world_.hosts();
    if (transfers_.has_hierarchy())  // ranks of one place on each host are a group of many meshes
      measure_split(world_.rank() % profile_.ranks_per_host);
    return std::move(profile_);
  }

 private:
  /// Work per second, without what starting the op costs.
  double rate(double work, double seconds, int calls = 1) const {
    return work / std::max(seconds - calls * profile_.op_overhead_seconds, seconds / 2);
  }

  void measure_products(DType dtype) {
    RateCurve::Points points;
    for (const LinearSizes& sizes : kLinears) {
      if (sizes.flops() > effort_.largest_product) break;
      double seconds = 0;
      const std::vector<OpCase> cases = linear_cases(dtype, sizes.rows, sizes.in, sizes.out);
      for (const OpCase& product : cases) {
        const double one = bench_.op_seconds(product, effort_.op_budget);
        seconds += one;
        if (dtype == DType::f32)
          profile_.peak_flops_per_second = std::max(profile_.peak_flops_per_second, sizes.flops() / one);
      }
      const auto calls = static_cast<int>(cases.size());
      points.push_back({sizes.flops(), rate(calls * sizes.flops(), seconds, calls)});
    }
    profile_.products[dtype] = RateCurve(std::move(points), "products");
  }

  void measure_attention(DType dtype) {
    RateCurve::Points forward, backward;
    for (const AttentionSizes& sizes : kAttentions) {
      const AttentionCases cases = attention_cases(dtype, sizes.sequences, sizes.length, sizes.heads);
      const auto add = [&](const OpCase& which, RateCurve::Points& points) {
        const double flops = which.work().flops;
        points.push_back({flops, rate(flops, bench_.op_seconds(which, effort_.op_budget))});
      };
      add(cases.forward, forward);
      add(cases.backward, backward);
    }
    profile_.attention_forward[dtype] = RateCurve(std::move(forward), "attention_forward");
    profile_.attention_backward[dtype] = RateCurve(std::move(backward), "attention_backward");
  }

  void measure_passes() {
    std::map<std::string, RateCurve::Points> points;
    for (std::int64_t bytes : effort_.pass_bytes) {
      for (const OpCase& which : pass_cases(DType::f32, bytes)) {
        const Work work = which.work();
        const auto moved = static_cast<double>(work.bytes_read + work.bytes_written);
        RateCurve::Points& known = points[std::string(which.definition->name())];
        if (!known.empty() && moved <= known.back().first) continue;  // a table has a least size
        known.push_back({moved, rate(moved, bench_.op_seconds(which, effort_.op_budget / 2))});
      }
    }
    profile_.memory = RateCurve(points.at("add"), "memory");
    for (auto& [kind, curve] : points) profile_.kernels[kind] = RateCurve(std::move(curve), kind);
  }

  /// Over all ranks. Groups of neighbours may lie on more or fewer hosts, but all ranks must measure alike, and have
  /// one name for it.
  std::int32_t largest(std::int32_t value) {
    wait(world_.all_reduce(&value, &value, 1, DType::i32, Reduction::max));
    return value;
  }

  /// The group of this rank's color.
  void measure_split(int color) {
    const auto host = world_.split(color, world_.rank());
    const auto device = &transfers_ == &world_ ? nullptr : transfers_.split(color, world_.rank());
    measure_group({device ? *device : *host, *host});
  }

  /// A group of every rank: in each way that it has.
  void measure_group(const CalibrationBench::Group& group) {
    for (CollectiveKind kind : {CollectiveKind::all_reduce, CollectiveKind::all_gather, CollectiveKind::reduce_scatter,
                                CollectiveKind::shift}) {
      const bool has_choice = largest(group.device.has_hierarchy()) != 0 && kind != CollectiveKind::shift;
      for (Transport way : {Transport::hierarchical, Transport::messages}) {
        transfers_.choose_transports([way](auto...) { return way; });
        if (has_choice || way == Transport::messages) measure_collective(group, kind);
      }
    }
    transfers_.choose_transports({});
    const OpCase product = linear_cases(DType::f32, 256, 256, 768).front();
    const CalibrationBench::Overlap overlap = bench_.overlap(group, product, 2 * kMiB);
    profile_.overlap_loss = overlap.loss;
    profile_.overlap_slowdown = overlap.slowdown;
  }

  void measure_collective(const CalibrationBench::Group& group, CollectiveKind kind) {
    const int size = group.host.size();
    TransferCurve::Points points;
    for (std::int64_t bytes : effort_.message_bytes) {
      const std::int64_t unit = size * size_of(DType::f32);
      const std::int64_t whole = (bytes + unit - 1) / unit * unit;
      points.push_back(
          {static_cast<double>(whole), bench_.transfer_seconds(group, kind, whole, effort_.transfer_budget)});
    }
    const auto transport = static_cast<Transport>(largest(static_cast<std::int32_t>(bench_.transport())));
    profile_.collectives.insert_or_assign({kind, size, largest(group.host.hosts()), transport},
                                          TransferCurve(std::move(points), name_of(kind)));
  }

  Communicator& world_;      // over the host's memory
  Communicator& transfers_;  // over the device's
  Effort effort_;
  CalibrationBench bench_;
  HardwareProfile profile_;
};

}  // namespace

HardwareProfile calibrate(Device& device, Communicator& world, const CalibrationOptions& options) {
  return Calibration(device, world, options).run();
}

}  // namespace annulus
