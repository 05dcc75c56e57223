#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "collectives/nccl_communicator.h"
#include "collectives/thread_communicator.h"
#include "runtime/cpu/device.h"
#include "tests/collectives/nccl_fake.h"
#include "tests/model/composition.h"
#include "tests/streams/stream_device.h"

namespace annulus::testing {

/// A rank whose device takes orders, and whose collectives are NCCL's.
class StreamRank {
 public:
  StreamRank(const Composition& composition, Tail tail, Communicator& outer, std::unique_ptr<Communicator> bootstrap,
             NcclFabric& fabric, std::vector<std::string>* issued);

  /// Made, and initialized, at the first call.
  StepRunner& runner(OpMonitor* monitor = nullptr);
  void end_runner() { runner_.reset(); }
  FakeStreams& streams() { return *device_.streams(); }
  const NcclWorld& world() const { return world_; }
  NcclFabric& fabric() { return fabric_; }
  /// All ranks, beside NCCL.
  Communicator& outer() { return outer_; }

 private:
  const Composition& composition_;
  const Tail tail_;
  Communicator& outer_;
  NcclFabric& fabric_;
  CpuDevice cpu_;
  StreamDevice device_;
  NcclWorld world_;
  MeshAxes mesh_;
  Groups groups_;
  std::unique_ptr<StepRunner> runner_;
};

/// Calls `body` for every rank of the mesh, each a thread. What each asks of NCCL, in its order.
std::vector<std::vector<std::string>> on_stream_ranks(const Composition& composition, Tail tail,
                                                      const std::function<void(StreamRank& rank)>& body);

}  // namespace annulus::testing
