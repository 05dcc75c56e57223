#pragma once

#include <memory>
#include <string>
#include <vector>

#include "collectives/nccl_library.h"
#include "tests/streams/fake_streams.h"

namespace annulus::testing {

/// Stands in for NCCL among ranks that are threads: buffers are the host's, calls return in progress and are accepted
/// after a random number of questions, and every rule that NCCL leaves undefined when broken is an error here: a call
/// on a group that is in progress, ranks of a group that call different things, a group used after its end, a call
/// while a replay of an earlier one is under way, a group that ends before the graphs that hold it. Streams are
/// FakeStreams, which a call reaches when it is accepted, not before.
class NcclFabric {
 public:
  explicit NcclFabric(std::uint64_t seed);
  ~NcclFabric();

  /// The library as one rank sees it. `issued`, if given, collects the names of its calls in their order; `streams` are
  /// the rank's, where it has some.
  std::unique_ptr<NcclLibrary> library(std::vector<std::string>* issued = nullptr, FakeStreams* streams = nullptr);
  /// Every call from then on stays in progress for ever, as when a rank has died.
  void freeze();
  /// Every group has failed from then on.
  void fail();

  struct State;

 private:
  std::shared_ptr<State> state_;
};

}  // namespace annulus::testing
