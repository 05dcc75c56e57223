#pragma once

#include <cstdint>
#include <vector>

#include "runtime/execute/calibration_cases.h"
#include "runtime/execute/device.h"
#include "runtime/execute/lanes.h"
#include "runtime/simulate/hardware_profile.h"

namespace annulus {

/// A collective to be timed.
struct TransferCase {
  CollectiveKind kind = CollectiveKind::all_reduce;
  Operands operands = Operands::apart;
};

/// Times ops and transfers. All ranks of `world`, whose buffers are the host's, call everything in the same order and
/// get the same seconds.
class CalibrationBench {
 public:
  /// Over buffers of the device's memory, and of the host's; one communicator where these are one memory.
  struct Group {
    Communicator& device;
    Communicator& host;
  };

  CalibrationBench(Device& device, Communicator& world, Progress progress, const SharedAllocator& shared_memory,
                   std::int64_t pool_bytes);

  enum class From : std::uint8_t {
    near,  ///< operands lie in a cache, but not in the nearest: as where the ops before have left them
    far,   ///< nobody has touched them for long
  };
  /// Typical seconds of a call, mean over the ranks, which make it at the same time. For about `budget` seconds.
  double op_seconds(const OpCase& which, From from, double budget);
  /// The same of a call whose operands were touched so long ago; since then, so many other bytes.
  double seconds_after(const OpCase& which, std::int64_t bytes, double seconds);
  /// Typical seconds from the last rank's begin of a collective to its end, over `group`: of all groups that the ranks
  /// form, the mean. As in a step, each rank has just written what it sends. `payload_bytes` is M of
  /// collective_cost.h.
  double transfer_seconds(const Group& group, const TransferCase& which, std::int64_t payload_bytes, double budget);
  /// How the last one has travelled.
  Transport transport() const { return ticket_.transport; }
  /// What a transfer and the compute beside it cost each other.
  OverlapCost overlap(const Group& group, const TransferCase& transfer, std::int64_t payload_bytes,
                      const OpCase& compute);

 private:
  struct Bound;  // a case with its operands' addresses
  Bound bind(const OpCase& which, From from);
  std::int64_t next_place(Bound& bound);
  void restore(const Bound& bound);
  double compute_seconds(Bound& bound, int calls);
  void prepare_transfer(Communicator& group, const TransferCase& which, std::int64_t payload_bytes);
  double mean_over_ranks(double value);
  void fill(std::int64_t begin, std::int64_t end);

  Device& device_;
  Communicator& world_;
  std::int64_t pool_bytes_;
  std::shared_ptr<std::byte> shared_;  // what floats_ is, where ranks share it
  std::byte* floats_;
  std::byte* ids_;
  std::vector<float> pattern_;
  std::int64_t next_transfer_ = 0;
  std::int64_t far_ = 0;  // what lies before it was touched last
  Ticket ticket_;
  Lanes lanes_;  // last: its thread ends before what it uses
};

}  // namespace annulus
