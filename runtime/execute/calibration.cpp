#include "runtime/execute/calibration.h"

#include <algorithm>

#include "runtime/core/host_memory.h"
#include "runtime/execute/calibration_bench.h"
#include "runtime/simulate/prediction.h"

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
            .message_bytes = {8, 4 * kKiB, 64 * kKiB, 512 * kKiB, kMiB, 2 * kMiB, 4 * kMiB, 32 * kMiB},
            .dtypes = {DType::f32},
            .pool_bytes = 528 * kMiB};
  return {.op_budget = 0.04,
          .transfer_budget = 0.06,
          .largest_product = 1e11,
          .pass_bytes = {16 * kKiB, 64 * kKiB, 256 * kKiB, kMiB, 4 * kMiB, 16 * kMiB},
          .message_bytes = {8, 512, 4 * kKiB, 32 * kKiB, 128 * kKiB, 512 * kKiB, kMiB, 2 * kMiB, 4 * kMiB, 8 * kMiB,
                            64 * kMiB},
          .dtypes = {DType::f32, DType::f64},
          .pool_bytes = 528 * kMiB};
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

/// Products of few rows with large weights, and others of as much work, by place in kLinears: what the former take
/// longer is the time of fetching the weights.
struct FewRows {
  LinearSizes sizes;
  std::size_t as_much_work;
};
constexpr FewRows kFewRows[] = {{{128, 768, 3072}, 5}, {{128, 3072, 768}, 5}};

struct AttentionSizes {
  std::int64_t sequences, length, heads;
};
constexpr AttentionSizes kAttentions[] = {{4, 16, 12},  {4, 32, 12},  {2, 64, 12},  {2, 128, 12},
                                          {1, 256, 12}, {1, 512, 12}, {1, 1024, 12}};
constexpr std::int64_t kNarrowLength = 256;  // that is measured with narrower heads, too

/// What is wanted, or less where little memory is free; alike on all ranks.
std::int64_t pool_bytes(std::int64_t wanted, Communicator& world) {
  constexpr std::int64_t kFraction = 8;  // of what is free
  const std::int64_t share = available_memory_bytes() / kFraction * world.hosts() / world.size();
  auto lacking = static_cast<std::int32_t>((wanted - std::clamp(share, wanted / 2, wanted)) / kMiB);
  wait(world.all_reduce(&lacking, &lacking, 1, DType::i32, Reduction::max));
  return wanted - lacking * kMiB;
}

class Calibration {
 public:
  Calibration(Device& device, Communicator& world, const CalibrationOptions& options)
      : world_(world),
        transfers_(options.transfers == nullptr ? world : *options.transfers),
        effort_(effort_of(options.mode)),
        bench_(device, world, options.progress, options.shared_memory, pool_bytes(effort_.pool_bytes, world)) {
    profile_.device = device.description();
    profile_.peak_name = "SGEMM ceiling of " + options.processor;
    profile_.name =
        std::string(options.mode == CalibrationMode::quick ? "first-run default (quick calibration)" : "calibration") +
        " of " + std::to_string(world.size()) + (world.size() == 1 ? " rank, " : " ranks, each ") + options.processor;
    if (world.hosts() > 1) profile_.ranks_per_host = world.size() / world.hosts();
  }

  HardwareProfile run() {
    for (int round = 0; round < kRounds; ++round) {
      next_ = 0;
      measure();
    }
    if (const std::vector<int> colors = group_colors(); !colors.empty())
      with_group(colors.back(), [this](const CalibrationBench::Group& group) { measure_overlap(group); });
    return std::move(profile_);
  }

 private:
  /// Of everything, so that what disturbs the machine for a second or two does not disturb all calls of a case.
  static constexpr int kRounds = 2;

  void measure() {
    profile_.op_overhead_seconds = op_seconds(smallest_case(), From::near, effort_.op_budget);
    for (DType dtype : effort_.dtypes) {
      measure_products(dtype);
      measure_attention(dtype);
    }
    measure_passes();
    measure_memory();
    for (int color : group_colors())
      with_group(color, [this](const CalibrationBench::Group& group) { measure_group(group); });
  }

  /// This rank's, of each way to split all ranks into groups that is measured.
  std::vector<int> group_colors() {
    std::vector<int> colors;
    for (int size = 2; size <= world_.size(); ++size)
      if (world_.size() % size == 0) colors.push_back(world_.rank() / size);
    if (transfers_.has_hierarchy())  // ranks of one place on each host are a group of many meshes
      colors.push_back(world_.rank() % profile_.ranks_per_host);
    return colors;
  }

  /// The least of what the rounds so far say of this case, which is the next of this round.
  double least(double seconds) {
    if (next_ == known_.size()) known_.push_back(seconds);
    known_[next_] = std::min(known_[next_], seconds);
    return known_[next_++];
  }
  using From = CalibrationBench::From;
  double op_seconds(const OpCase& which, From from, double budget) {
    return least(bench_.op_seconds(which, from, budget / kRounds));
  }

  /// Work per second, without what starting the op costs.
  double rate(double work, double seconds) const {
    return work / std::max(seconds - profile_.op_overhead_seconds, seconds / 2);
  }

  /// Of a linear layer's three products together; `bytes`, of their largest matrices.
  struct LinearTime {
    double flops = 0, bytes = 0, seconds = 0;
  };
  LinearTime linear_time(DType dtype, const LinearSizes& sizes) {
    LinearTime time;
    for (const OpCase& product : linear_cases(dtype, sizes.rows, sizes.in, sizes.out)) {
      const Work work = product.work();
      const double one = op_seconds(product, From::near, effort_.op_budget);
      time.flops += work.flops;
      time.bytes += static_cast<double>(
          std::max({product.inputs[0].bytes(), product.inputs[1].bytes(), product.outputs().front().bytes()}));
      time.seconds += std::max(one - profile_.op_overhead_seconds, one / 2);
      if (dtype == DType::f32)
        profile_.peak_flops_per_second = std::max(profile_.peak_flops_per_second, work.flops / one);
    }
    return time;
  }

  void measure_products(DType dtype) {
    std::vector<LinearTime> times;
    for (const LinearSizes& sizes : kLinears)
      if (sizes.flops() <= effort_.largest_product) times.push_back(linear_time(dtype, sizes));
    if (dtype == DType::f32) measure_product_bandwidth(times);
    RateCurve::Points points;
    for (std::size_t i = 0; i < times.size(); ++i) {
      const auto& [flops, bytes, seconds] = times[i];
      const double fetching = profile_.product_bandwidth > 0 ? bytes / profile_.product_bandwidth : 0;
      points.push_back({kLinears[i].flops(), flops / std::max(seconds - fetching, seconds / 2)});
    }
    profile_.products[dtype] = RateCurve(std::move(points), "products");
  }

  /// Of products of equal work, those with a larger matrix take longer.
  void measure_product_bandwidth(const std::vector<LinearTime>& times) {
    double bytes = 0, seconds = 0;
    for (const auto& [sizes, as_much_work] : kFewRows) {
      const LinearTime few = linear_time(DType::f32, sizes);
      bytes += few.bytes - times[as_much_work].bytes;
      seconds += few.seconds - times[as_much_work].seconds;
    }
    if (seconds > 0) profile_.product_bandwidth = bytes / seconds;
  }

  struct AttentionTime {
    double keys, flops, pairs, seconds;
  };
  AttentionTime attention_time(const OpCase& which) {
    const Work work = which.work();
    const double seconds = op_seconds(which, From::near, effort_.op_budget);
    return {keys_per_query(*which.definition), work.flops, static_cast<double>(work.attended_pairs),
            std::max(seconds - profile_.op_overhead_seconds, seconds / 2)};
  }

  /// Heads of half the width take half of the time for their products, and all of it for their pairs.
  double pair_seconds(const AttentionTime& whole, const AttentionTime& half) const {
    return std::clamp((2 * half.seconds - whole.seconds) / whole.pairs, 0.0, whole.seconds / whole.pairs / 2);
  }

  void measure_attention(DType dtype) {
    std::vector<AttentionTime> forward, backward;
    for (const AttentionSizes& sizes : kAttentions) {
      const AttentionCases cases = attention_cases(dtype, sizes.sequences, sizes.length, sizes.heads);
      forward.push_back(attention_time(cases.forward));
      backward.push_back(attention_time(cases.backward));
      if (dtype != DType::f32 || sizes.length != kNarrowLength) continue;
      const AttentionCases narrow = attention_cases(dtype, sizes.sequences, sizes.length, sizes.heads, kHeadDim / 2);
      profile_.attention_forward_pair_seconds = pair_seconds(forward.back(), attention_time(narrow.forward));
      profile_.attention_backward_pair_seconds = pair_seconds(backward.back(), attention_time(narrow.backward));
    }
    const auto curve = [](const std::vector<AttentionTime>& times, double of_pair, const char* name) {
      RateCurve::Points points;
      for (const auto& [keys, flops, pairs, seconds] : times)
        points.push_back({keys, flops / std::max(seconds - pairs * of_pair, seconds / 2)});
      return RateCurve(std::move(points), name);
    };
    profile_.attention_forward[dtype] = curve(forward, profile_.attention_forward_pair_seconds, "attention_forward");
    profile_.attention_backward[dtype] =
        curve(backward, profile_.attention_backward_pair_seconds, "attention_backward");
  }

  static double moved_by(const OpCase& which) {
    const Work work = which.work();
    return static_cast<double>(work.bytes_read + work.bytes_written);
  }

  void measure_passes() {
    std::map<std::string, RateCurve::Points> points;
    for (std::int64_t bytes : effort_.pass_bytes) {
      for (const OpCase& which : pass_cases(DType::f32, bytes)) {
        const double moved = moved_by(which);
        RateCurve::Points& known = points[std::string(which.definition->name())];
        if (!known.empty() && moved <= known.back().first) continue;  // a table has a least size
        known.push_back({moved, rate(moved, op_seconds(which, From::near, effort_.op_budget / 2))});
      }
    }
    profile_.memory = RateCurve(points.at("add"), "memory");
    for (auto& [kind, curve] : points) profile_.kernels[kind] = RateCurve(std::move(curve), kind);
  }

  /// What ops of one kind take longer when their operands have left the caches.
  void measure_far(const std::vector<OpCase>& cases) {
    double seconds = 0, bytes = 0;
    for (const OpCase& which : cases) {
      const double budget = effort_.op_budget / 2;
      const double near = op_seconds(which, From::near, budget), far = op_seconds(which, From::far, budget);
      seconds += far - near;
      bytes += static_cast<double>(which.footprint());
    }
    profile_.far_seconds_per_byte[std::string(cases.front().definition->name())] = std::max(0.0, seconds / bytes);
  }

  void measure_memory() {
    // The dearest first: nobody has touched what they take for longest.
    const AttentionCases attention = attention_cases(DType::f32, 2, 64, 12);
    measure_far({attention.forward});
    measure_far({attention.backward});
    std::vector<OpCase> products;
    for (const FewRows& few : kFewRows)
      for (OpCase& product : linear_cases(DType::f32, few.sizes.rows, few.sizes.in, few.sizes.out))
        products.push_back(std::move(product));
    measure_far(products);
    const std::vector<OpCase> passes = pass_cases(DType::f32, kMiB);
    for (const OpCase& which : passes) measure_far({which});

    const OpCase& pass = passes.front();
    const auto rate_after = [&](std::int64_t bytes, double seconds) {
      return rate(moved_by(pass), least(bench_.seconds_after(pass, bytes, seconds)));
    };
    RateCurve::Points after_bytes, after_seconds;
    for (std::int64_t bytes : {16 * kMiB, 64 * kMiB, 160 * kMiB, 384 * kMiB})
      after_bytes.push_back({static_cast<double>(bytes), rate_after(bytes, 0)});
    for (double seconds : {0.01, 0.05, 0.2}) after_seconds.push_back({seconds, rate_after(0, seconds)});
    profile_.after_bytes = RateCurve(std::move(after_bytes), "after_bytes");
    profile_.after_seconds = RateCurve(std::move(after_seconds), "after_seconds");
  }

  /// Over all ranks. Groups of neighbours may lie on more or fewer hosts, but all ranks must measure alike, and have
  /// one name for it.
  std::int32_t largest(std::int32_t value) {
    wait(world_.all_reduce(&value, &value, 1, DType::i32, Reduction::max));
    return value;
  }

  /// Calls `measure` with the group of this rank's color.
  template <class Measure>
  void with_group(int color, const Measure& measure) {
    const auto host = world_.split(color, world_.rank());
    const auto device = &transfers_ == &world_ ? nullptr : transfers_.split(color, world_.rank());
    measure(CalibrationBench::Group{device ? *device : *host, *host});
  }

  /// A group of every rank: in each way that it has.
  void measure_group(const CalibrationBench::Group& group) {
    constexpr TransferCase kTransfers[] = {
        {CollectiveKind::all_reduce, Operands::apart},     {CollectiveKind::all_reduce, Operands::in_place},
        {CollectiveKind::all_gather, Operands::apart},     {CollectiveKind::all_gather, Operands::in_place},
        {CollectiveKind::reduce_scatter, Operands::apart}, {CollectiveKind::shift, Operands::apart}};
    for (const TransferCase& which : kTransfers) {
      const bool has_choice = largest(group.device.has_hierarchy()) != 0 && which.kind != CollectiveKind::shift;
      for (Transport way : {Transport::hierarchical, Transport::messages}) {
        transfers_.choose_transports([way](auto...) { return way; });
        if (has_choice || way == Transport::messages) measure_collective(group, which);
      }
    }
    transfers_.choose_transports({});
  }

  /// Beside a product of a step's size.
  void measure_overlap(const CalibrationBench::Group& group) {
    const OpCase product = linear_cases(DType::f32, 256, 384, 1536).front();
    for (std::int64_t bytes : {64 * kKiB, kMiB, 32 * kMiB}) {
      const OverlapCost cost = bench_.overlap(group, {CollectiveKind::reduce_scatter, Operands::apart}, bytes, product);
      if (profile_.overlap.empty() || cost.alone_seconds > profile_.overlap.back().alone_seconds)
        profile_.overlap.push_back(cost);
    }
  }

  void measure_collective(const CalibrationBench::Group& group, const TransferCase& which) {
    const int size = group.host.size();
    TransferCurve::Points points;
    for (std::int64_t bytes : effort_.message_bytes) {
      const std::int64_t unit = size * size_of(DType::f32);
      const std::int64_t whole = (bytes + unit - 1) / unit * unit;
      points.push_back({static_cast<double>(whole),
                        least(bench_.transfer_seconds(group, which, whole, effort_.transfer_budget / kRounds))});
    }
    const auto transport = static_cast<Transport>(largest(static_cast<std::int32_t>(bench_.transport())));
    profile_.collectives.insert_or_assign({which.kind, size, largest(group.host.hosts()), transport, which.operands},
                                          TransferCurve(std::move(points), name_of(which.kind)));
  }

  Communicator& world_;      // over the host's memory
  Communicator& transfers_;  // over the device's
  Effort effort_;
  CalibrationBench bench_;
  HardwareProfile profile_;
  std::vector<double> known_;  // seconds of each case, in the order of a round
  std::size_t next_ = 0;
};

}  // namespace

HardwareProfile calibrate(Device& device, Communicator& world, const CalibrationOptions& options) {
  return Calibration(device, world, options).run();
}

}  // namespace annulus
