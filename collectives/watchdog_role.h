#pragma once

#include <poll.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "collectives/rank_state.h"
#include "collectives/socket.h"
#include "collectives/watchdog.h"

namespace annulus {

/// One side of the watchdog's conversation: rank 0 oversees, the others report to it. Times are steady_seconds().
class WatchdogRole {
 public:
  virtual ~WatchdogRole() = default;
  /// The sockets to wait for.
  virtual std::vector<pollfd> sockets() const = 0;
  /// Takes in what has arrived and sends what is due. A failure, in words, that all ranks have been told of.
  virtual std::optional<std::string> step(double now, const RankState& own) = 0;
  /// Time in which this process did not run is nobody's silence.
  virtual void forgive(double seconds) = 0;
  /// This rank has failed.
  virtual void report(const std::string& why) = 0;
  virtual void say_goodbye(double now) = 0;
  /// Whether this rank may leave, having said goodbye.
  virtual bool finished(double now) const = 0;
  /// Whether all ranks are connected.
  virtual bool connected() const = 0;
};

std::unique_ptr<WatchdogRole> make_overseer(int size, FileDescriptor listener, const Address& address,
                                            const WatchdogOptions& options);
std::unique_ptr<WatchdogRole> make_member(int rank, const Address& address, const WatchdogOptions& options);

}  // namespace annulus
