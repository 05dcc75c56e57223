#include "runtime/execute/calibration_bench.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "runtime/core/error.h"
#include "runtime/core/random.h"

namespace annulus {
namespace {

constexpr std::int64_t kAlignment = 64;
constexpr std::int64_t kIds = std::int64_t{1} << 20;
constexpr std::int64_t kNear = std::int64_t{16} << 20;
constexpr std::int64_t kActivations = std::int64_t{64} << 20, kLongestActivation = std::int64_t{4} << 20;
constexpr int kFewestCalls = 5, kMostCalls = 200;

std::int64_t aligned(std::int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

/// Median, which is what a ledger tells of steps.
double typical(std::vector<double> values) {
  const auto place = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), place, values.end());
  return *place;
}

/// Mean of the middle half: some have left a cache, others not; a transfer beside compute begins at once or at the
/// scheduler's next tick, now this, now that, and a step has many of them.
double middle(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const auto quarter = static_cast<std::ptrdiff_t>(values.size() / 4);
  return std::accumulate(values.begin() + quarter, values.end() - quarter, 0.0) /
         static_cast<double>(values.size() - 2 * static_cast<std::size_t>(quarter));
}

/// Of what the ranks measured of the same transfers. Who came last waited for nobody: the shortest time is the
/// transfer's.
std::vector<double> shortest(Communicator& group, std::vector<double> seconds) {
  for (double& value : seconds) value = -value;
  wait(group.all_reduce(seconds.data(), seconds.data(), static_cast<std::int64_t>(seconds.size()), DType::f64,
                        Reduction::max));
  for (double& value : seconds) value = -value;
  return seconds;
}

/// Of the same transfers, from when the last rank began each to when this one saw its end. Who came first has yielded,
/// and sees it late. Where hosts' clocks differ, without that.
std::vector<double> durations(Communicator& group, std::vector<double> begun, const std::vector<double>& ended) {
  const bool one_clock = group.hosts() == 1;
  if (one_clock)
    wait(group.all_reduce(begun.data(), begun.data(), static_cast<std::int64_t>(begun.size()), DType::f64,
                          Reduction::max));
  std::vector<double> seconds;
  for (std::size_t i = 0; i < ended.size(); ++i) seconds.push_back(ended[i] - begun[i]);
  return one_clock ? seconds : shortest(group, std::move(seconds));
}

}  // namespace

struct CalibrationBench::Bound {
  const OpCase& which;
  std::vector<ValueType> output_types;
  std::int64_t float_bytes = 0;  ///< of one place for all operands
  From from = From::near;
  std::int64_t places = 1;  ///< where the operands are near
  std::vector<std::int64_t> far_places = {};
  std::vector<std::int64_t> input_offsets = {}, output_offsets = {};
  std::int64_t workspace_bytes = 0;
  std::int64_t next = 0;
  WorkCounters counters = {};
};

CalibrationBench::CalibrationBench(Device& device, Communicator& world, Progress progress,
                                   const SharedAllocator& shared_memory, std::int64_t pool_bytes)
    : device_(device),
      world_(world),
      pool_bytes_(pool_bytes),
      shared_(shared_memory ? shared_memory(pool_bytes) : nullptr),
      floats_(shared_ ? shared_.get() : device.allocate(pool_bytes)),
      ids_(device.allocate(kIds * size_of(DType::i32))),
      lanes_(1, progress) {
  const PhiloxKey key = stream_key(0, "calibration");
  std::vector<std::int32_t> ids(kIds);
  for (std::size_t i = 0; i < ids.size(); ++i)
    ids[i] = static_cast<std::int32_t>(random_bits(key, i) % kCaseVocabulary);
  device_.copy_to_device(ids_, ids.data(), kIds * size_of(DType::i32));
  // In [0.5, 1); two of them side by side are a small positive f64.
  pattern_.resize(std::size_t{1} << 18);
  for (std::size_t i = 0; i < pattern_.size(); ++i)
    pattern_[i] = static_cast<float>(0.5 + 0.49 * uniform(philox({static_cast<std::uint32_t>(i), 0, 0, 0}, key)[0]));
  fill(0, pool_bytes);
}

void CalibrationBench::fill(std::int64_t begin, std::int64_t end) {
  const auto chunk = static_cast<std::int64_t>(pattern_.size() * sizeof(float));
  for (std::int64_t at = begin; at < end; at += chunk)
    device_.copy_to_device(floats_ + at, pattern_.data(), std::min(chunk, end - at));
}

CalibrationBench::Bound CalibrationBench::bind(const OpCase& which, From from) {
  Bound bound{.which = which, .output_types = which.outputs(), .from = from};
  const auto take = [&](const ValueType& type) {
    if (type.dtype == DType::i32) return std::int64_t{0};
    const std::int64_t at = bound.float_bytes;
    bound.float_bytes += aligned(type.bytes());
    return at;
  };
  for (const ValueType& type : which.inputs) bound.input_offsets.push_back(take(type));
  bound.output_offsets.assign(bound.output_types.size(), -1);
  for (const Alias& alias : which.definition->aliases())
    bound.output_offsets[static_cast<std::size_t>(alias.output)] =
        bound.input_offsets[static_cast<std::size_t>(alias.input)];
  for (std::size_t i = 0; i < bound.output_offsets.size(); ++i)
    if (bound.output_offsets[i] < 0) bound.output_offsets[i] = take(bound.output_types[i]);
  bound.workspace_bytes = aligned(device_.workspace_bytes(*which.definition, which.inputs, bound.output_types));
  bound.float_bytes = std::max(bound.float_bytes, kAlignment);
  if (bound.workspace_bytes + kNear + bound.float_bytes > pool_bytes_)
    throw InternalError("calibration: the operands of " + std::string(which.definition->name()) + " do not fit");
  bound.places = std::max<std::int64_t>(1, kNear / bound.float_bytes);
  return bound;
}

/// Operands wander, or they would stay in a nearer cache than they do in a step.
std::int64_t CalibrationBench::next_place(Bound& bound) {
  if (bound.from == From::near) return bound.workspace_bytes + bound.next++ % bound.places * bound.float_bytes;
  const std::int64_t first = bound.workspace_bytes + kNear;
  if (far_ < first || far_ + bound.float_bytes > pool_bytes_) far_ = first;
  bound.far_places.push_back(far_);
  far_ += bound.float_bytes;
  return bound.far_places.back();
}

/// What a case leaves behind may be denormal, which is slow.
void CalibrationBench::restore(const Bound& bound) {
  fill(0, bound.workspace_bytes + (bound.from == From::near ? bound.places * bound.float_bytes : 0));
  for (std::int64_t place : bound.far_places) fill(place, place + bound.float_bytes);
}

double CalibrationBench::compute_seconds(Bound& bound, int calls) {
  double seconds = 0;
  for (int call = 0; call < calls; ++call) {
    std::byte* const place = floats_ + next_place(bound);
    std::vector<Tensor> inputs, outputs;
    for (std::size_t i = 0; i < bound.which.inputs.size(); ++i) {
      const ValueType& type = bound.which.inputs[i];
      inputs.push_back({type.dtype == DType::i32 ? ids_ : place + bound.input_offsets[i], type.dtype, type.shape});
    }
    for (std::size_t i = 0; i < bound.output_types.size(); ++i)
      outputs.push_back({place + bound.output_offsets[i], bound.output_types[i].dtype, bound.output_types[i].shape});
    const double begin = now_seconds();
    device_.run(*bound.which.definition, {inputs, outputs, floats_, bound.workspace_bytes, &bound.counters});
    seconds += now_seconds() - begin;
  }
  return seconds;
}

double CalibrationBench::mean_over_ranks(double value) {
  wait(world_.all_reduce(&value, &value, 1, DType::f64, Reduction::sum));
  return value / world_.size();
}

double CalibrationBench::op_seconds(const OpCase& which, From from, double budget) {
  Bound bound = bind(which, from);
  compute_seconds(bound, 1);  // prepares the kernel, touches the memory
  mean_over_ranks(0);         // all begin together
  std::vector<double> seconds;
  const double begin = now_seconds();
  while (static_cast<int>(seconds.size()) < kFewestCalls ||
         (static_cast<int>(seconds.size()) < kMostCalls && now_seconds() - begin < budget))
    seconds.push_back(compute_seconds(bound, 1));
  restore(bound);
  return mean_over_ranks(typical(std::move(seconds)));
}

double CalibrationBench::seconds_after(const OpCase& which, std::int64_t bytes, double seconds) {
  Bound bound = bind(which, From::near);
  const auto places = static_cast<int>(bound.places);
  compute_seconds(bound, places);
  mean_over_ranks(0);
  Bound others = bind(which, From::far);  // not filled: that may go past the caches
  for (std::int64_t touched = 0; touched < bytes; touched += others.float_bytes) compute_seconds(others, 1);
  for (const double begin = now_seconds(); now_seconds() - begin < seconds;) {
  }
  std::vector<double> calls;
  for (int call = 0; call < places; ++call) calls.push_back(compute_seconds(bound, 1));
  restore(bound);
  restore(others);
  return mean_over_ranks(middle(std::move(calls)));
}

void CalibrationBench::prepare_transfer(Communicator& group, const TransferCase& which, std::int64_t payload_bytes) {
  const std::int64_t count = payload_bytes / size_of(DType::f32), part = count / group.size();
  const std::int64_t room = aligned(payload_bytes);
  if (2 * room > pool_bytes_ / 2) throw InternalError("calibration: a message does not fit");
  // Transfers wander, as operands of compute do, through a half of the pool that no compute beside them uses: short
  // ones as far as activations do, long ones, which are gradients, through all of it.
  const std::int64_t area =
      payload_bytes <= kLongestActivation ? std::min(kActivations, pool_bytes_ / 2) : pool_bytes_ / 2;
  const std::int64_t places = area / (2 * room);
  std::byte* const receive = floats_ + pool_bytes_ / 2 + next_transfer_++ % places * 2 * room;
  std::byte* send = which.operands == Operands::in_place ? receive : receive + room;
  std::int64_t sent_bytes = payload_bytes;
  if (which.kind == CollectiveKind::all_gather) {
    sent_bytes = part * size_of(DType::f32);
    if (which.operands == Operands::in_place) send += group.rank() * sent_bytes;
  }
  fill(send - floats_, send - floats_ + sent_bytes);
  switch (which.kind) {
    case CollectiveKind::all_reduce:
      ticket_.start = [=, &group] { return group.all_reduce(send, receive, count, DType::f32, Reduction::max); };
      break;
    case CollectiveKind::all_gather:
      ticket_.start = [=, &group] { return group.all_gather(send, receive, part, DType::f32); };
      break;
    case CollectiveKind::reduce_scatter:
      ticket_.start = [=, &group] { return group.reduce_scatter(send, receive, part, DType::f32, Reduction::max); };
      break;
    case CollectiveKind::shift:
      ticket_.start = [=, &group] { return group.shift(send, receive, count, DType::f32, 1); };
      break;
    default:
      throw InternalError("calibration: programs do not record this collective");
  }
  mean_over_ranks(0);  // all begin together
}

double CalibrationBench::transfer_seconds(const Group& group, const TransferCase& which, std::int64_t payload_bytes,
                                          double budget) {
  const auto once = [&] {
    prepare_transfer(group.device, which, payload_bytes);
    lanes_.hand_over(0, ticket_);
    lanes_.wait(ticket_);
    return ticket_.ended - ticket_.begun;
  };
  once();  // makes connections and windows
  const double first = mean_over_ranks(once());
  const int calls = std::clamp(static_cast<int>(budget / first), kFewestCalls, kMostCalls);
  std::vector<double> seconds;
  for (int call = 0; call < calls; ++call) seconds.push_back(once());
  return mean_over_ranks(typical(shortest(group.host, std::move(seconds))));
}

OverlapCost CalibrationBench::overlap(const Group& group, const TransferCase& transfer, std::int64_t payload_bytes,
                                      const OpCase& compute) {
  constexpr int kRounds = 9;
  const bool is_long = payload_bytes > kLongestActivation;
  const double transfer_alone = transfer_seconds(group, transfer, payload_bytes, 0.02);
  Bound bound = bind(compute, From::near);
  if (bound.workspace_bytes + bound.places * bound.float_bytes > pool_bytes_ / 2)
    throw InternalError("calibration: the compute beside a transfer does not fit");
  compute_seconds(bound, 1);
  std::vector<double> lost, begun, ended;
  for (int round = 0; round < kRounds; ++round) {
    prepare_transfer(group.device, transfer, payload_bytes);
    compute_seconds(bound, 1);  // as in a step, where the core has long been computing
    lanes_.hand_over(0, ticket_);
    double beside = 0;
    int calls = 0;
    // Gradients are hidden whole; what a layer exchanges, behind one product: then whoever still waits has a core.
    do {
      beside += compute_seconds(bound, 1);
      ++calls;
      lanes_.poll();
    } while (!ticket_.complete.load() && is_long && beside < 50 * transfer_alone);
    lanes_.wait(ticket_);
    mean_over_ranks(0);
    lost.push_back(beside - compute_seconds(bound, calls));
    begun.push_back(ticket_.begun);
    ended.push_back(ticket_.ended);
  }
  restore(bound);
  const double beside = middle(durations(group.host, begun, ended));
  return {transfer_alone, std::max(mean_over_ranks(beside), transfer_alone),
          std::max(mean_over_ranks(middle(std::move(lost))), 0.0)};
}

}  // namespace annulus
