#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/core/communicator.h"
#include "runtime/core/dtype.h"

namespace annulus {

/// A measured rate (FLOP/s or bytes/s) by the size of the work (FLOPs or bytes): interpolated in the logarithms of
/// both, constant beyond the ends. Sizes ascend; all numbers are positive.
class RateCurve {
 public:
  using Points = std::vector<std::pair<double, double>>;  ///< (size, rate)

  RateCurve() = default;
  /// Throws ConfigError, naming `field`, where the points are not as above.
  explicit RateCurve(Points points, std::string_view field = "rate curve");

  bool empty() const { return points_.empty(); }
  const Points& points() const { return points_; }
  double rate(double size) const;
  /// size / rate(size); nothing takes no time.
  double seconds(double size) const;
  bool operator==(const RateCurve&) const = default;

 private:
  Points points_;
};

/// Measured seconds of one kind of collective on one size of group, by message: linear between the points (each pair of
/// them is an alpha and a beta), the first value below them, and beyond them the bandwidth between first and last.
class TransferCurve {
 public:
  using Points = std::vector<std::pair<double, double>>;  ///< (payload bytes M, seconds)

  TransferCurve() = default;
  /// At least two messages, ascending; the last takes longer than the first. Throws ConfigError, naming `field`.
  explicit TransferCurve(Points points, std::string_view field = "transfer curve");

  const Points& points() const { return points_; }
  double seconds(double payload_bytes) const;
  /// Seconds of the shortest message measured.
  double latency_seconds() const { return points_.front().second; }
  bool operator==(const TransferCurve&) const = default;

 private:
  Points points_;
};

/// Where a collective leaves its result: in place less is moved.
enum class Operands : std::uint8_t { apart, in_place };
inline constexpr std::array kOperands = {Operands::apart, Operands::in_place};
std::string_view name_of(Operands operands);

/// What was measured: groups of so many ranks that lie on so many hosts, evenly.
struct CollectiveKey {
  CollectiveKind kind = CollectiveKind::all_reduce;
  int ranks = 2;
  int hosts = 1;
  Transport transport = Transport::direct;
  Operands operands = Operands::apart;
  auto operator<=>(const CollectiveKey&) const = default;
};

/// What a hidden transfer and the compute beside it cost each other: who moves it has to find a core, and then takes
/// it, and memory, from the compute.
struct OverlapCost {
  double alone_seconds = 0;   ///< of the transfer
  double beside_seconds = 0;  ///< the same while its rank computes
  double lost_seconds = 0;    ///< by which it slows the compute
  bool operator==(const OverlapCost&) const = default;
};

/// What predictions know of a machine: measured by `annulus calibrate`, or written by hand for one that is not here.
struct HardwareProfile {
  static constexpr int kVersion = 4;

  std::string name;
  std::string host;                  ///< where it was measured
  std::string device;                ///< for instance the processor's model, and threads per rank
  std::string peak_name;             ///< what utilisation is counted against: "SGEMM ceiling of this CPU, 2 threads"
  double peak_flops_per_second = 0;  ///< of one rank

  /// FLOPs of a product (2 m n k) -> FLOP/s, apart from what fetching its largest matrix takes; f32 is always there.
  std::map<DType, RateCurve> products;
  double product_bandwidth = 0;  ///< bytes/s of the largest of a product's matrices; 0: it takes no time of its own
  /// Keys that a query of a call meets on average -> FLOP/s; f32 is always there.
  std::map<DType, RateCurve> attention_forward, attention_backward;
  /// Of a pair of query and key of one head, whatever the head's width: maximum, exponential, sum. The rates above are
  /// apart from it.
  double attention_forward_pair_seconds = 0, attention_backward_pair_seconds = 0;
  RateCurve memory;                          ///< bytes read and written -> bytes/s, of a streaming pass
  std::map<std::string, RateCurve> kernels;  ///< the same by op kind, where arithmetic outweighs the memory
  // All of these find their operands in a cache that the ops before have left them in. Caches lose what was touched
  // long ago to what is touched since: by this rank, or, where hosts are shared, by others.
  /// Bytes touched since, and seconds gone by, -> bytes/s of a pass over the same memory. Empty: caches keep all.
  RateCurve after_bytes, after_seconds;
  /// By op kind: seconds longer that a byte of an operand takes which has left the caches; where a kind is missing,
  /// what `add` takes.
  std::map<std::string, double> far_seconds_per_byte;
  double op_overhead_seconds = 0;    ///< of starting any op
  std::vector<OverlapCost> overlap;  ///< by ascending alone_seconds; empty: neither costs the other anything
  /// What NCCL and the modules of kernels take of a GPU's memory beside arenas; 0 where it is not known.
  std::int64_t device_reserve_bytes = 0;
  int ranks_per_host = 0;  ///< of the job that was measured, ranks in order; 0: all on one
  std::map<CollectiveKey, TransferCurve> collectives;

  /// Where a dtype was not measured, f32's rate in bytes: f64 takes twice as long.
  double product_seconds(DType dtype, double flops, double largest_matrix_bytes) const;
  double attention_forward_seconds(DType dtype, double flops, double pairs, double keys_per_query) const;
  double attention_backward_seconds(DType dtype, double flops, double pairs, double keys_per_query) const;
  /// A pass over memory by an op of this kind.
  double pass_seconds(std::string_view op_kind, double bytes) const;
  /// How far memory has left the caches that was last touched so long ago, and so many bytes: 0 to 1.
  double far_share(double bytes_since, double seconds_since) const;
  /// What an op takes longer whose operands have left the caches by so many bytes.
  double far_seconds(std::string_view op_kind, double far_bytes) const;
  /// Of a transfer that takes so long alone. Linear between the points, as a transfer's own seconds are; what delays
  /// the shortest that was measured delays shorter ones, and the longest stands for longer ones by its ratios.
  OverlapCost overlap_cost(double alone_seconds) const;
  /// Seconds of a collective's transfer by the fastest transport measured; 0 for a group of one. Where (kind, size,
  /// hosts, operands) was not measured: the nearest that was (same kind first, then one or several hosts, size, hosts,
  /// operands),
  /// at the same bytes on the wire, plus the difference in steps times its latency per step (collective_cost.h). Throws
  /// ConfigError where no collective was measured at all.
  double collective_seconds(CollectiveKind kind, int group_size, double payload_bytes, int hosts = 1,
                            Operands operands = Operands::apart) const;
  /// The faster of `messages` and `hierarchical` for a group that has both; `hierarchical` unless both were measured
  /// for (kind, size, hosts).
  Transport transport_between_hosts(CollectiveKind kind, int group_size, int hosts, double payload_bytes) const;

  bool operator==(const HardwareProfile&) const = default;
};

/// The profile as JSON text, and back. `source` names the text in messages. Throws ConfigError, which lists every
/// problem.
std::string to_json(const HardwareProfile& profile);
HardwareProfile parse_hardware_profile(const std::string& text, const std::string& source);

/// Throws ConfigError where the file is missing, unreadable, no JSON or no valid profile.
HardwareProfile load_hardware_profile(const std::string& path);
/// Throws ConfigError where the file cannot be written.
void save_hardware_profile(const HardwareProfile& profile, const std::string& path);

}  // namespace annulus
