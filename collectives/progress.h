#pragma once

#include <memory>
#include <vector>

#include "runtime/core/communicator.h"

namespace annulus {

/// A transfer that needs this rank's help to move on.
class Operation {
 public:
  virtual ~Operation() = default;
  /// Does what can be done now and says whether the operation is complete. Never blocks. Throws CollectiveError.
  virtual bool advance() = 0;
  virtual Transport transport() const = 0;
};

/// The unfinished operations of one rank, over all of its groups. A test of any transfer moves all of them on: ranks
/// may wait for their transfers in different orders, and none may depend on a peer who waits for another one.
class ProgressEngine {
 public:
  /// A transfer that is complete when `operation` is.
  static Communicator::Pending start(const std::shared_ptr<ProgressEngine>& progress,
                                     std::unique_ptr<Operation> operation);

 private:
  struct Entry {
    std::unique_ptr<Operation> operation;
    bool complete = false;
    Transport transport = Transport::direct;
  };
  class Handle;

  void advance_all();

  std::vector<std::shared_ptr<Entry>> unfinished_;
};

/// A transfer that had nothing to do, or has done it.
Communicator::Pending completed_transfer(Transport transport);

}  // namespace annulus
