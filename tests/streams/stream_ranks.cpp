#include "tests/streams/stream_ranks.h"

#include <exception>
#include <mutex>
#include <utility>

namespace annulus::testing {
namespace {

MeshShape shape_of(const Composition& composition) {
  MeshShape shape = composition.mesh;
  shape.kv_heads = static_cast<int>(composition.options.model.kv_heads);
  return shape;
}

}  // namespace

StreamRank::StreamRank(const Composition& composition, Tail tail, Communicator& outer,
                       std::unique_ptr<Communicator> bootstrap, NcclFabric& fabric, std::vector<std::string>* issued)
    : composition_(composition),
      tail_(tail),
      outer_(outer),
      fabric_(fabric),
      cpu_(1),
      device_(cpu_, composition.options.seed + static_cast<std::uint64_t>(outer.rank())),
      world_(nccl_world(std::move(bootstrap), fabric.library(issued, device_.streams()))),
      mesh_(make_mesh(shape_of(composition), outer.rank())),
      groups_(*world_.communicator, mesh_) {}

StepRunner& StreamRank::runner(OpMonitor* monitor) {
  if (!runner_) {
    ExecutorOptions options = composition_.executor;
    options.monitor = monitor;
    runner_ = std::make_unique<StepRunner>(record_train_step(mesh_, composition_.options, tail_), composition_.options,
                                           device_, groups_.lookup(), options);
    runner_->initialize();
  }
  return *runner_;
}

std::vector<std::vector<std::string>> on_stream_ranks(const Composition& composition, Tail tail,
                                                      const std::function<void(StreamRank& rank)>& body) {
  const int size = shape_of(composition).ranks();
  const ThreadWorld threads(size);
  NcclFabric fabric(composition.options.seed);
  std::vector<std::vector<std::string>> issued(static_cast<std::size_t>(size));
  std::mutex mutex;
  std::exception_ptr cause;
  std::vector<std::shared_ptr<NcclSession>> sessions;
  run_ranks(size, [&](Communicator& outer) {
    StreamRank rank(composition, tail, outer, threads.communicator(outer.rank()), fabric,
                    &issued[static_cast<std::size_t>(outer.rank())]);
    try {
      {
        const std::lock_guard lock(mutex);
        sessions.push_back(rank.world().session);
        if (cause) return;
      }
      body(rank);
    } catch (...) {  // the others wait for this rank: they are ended, as by a watchdog
      rank.end_runner();
      const std::lock_guard lock(mutex);
      if (std::exchange(cause, cause ? cause : std::current_exception())) return;
      for (const auto& session : sessions) NcclWorld{session, nullptr}.abort();
    }
  });
  if (cause) std::rethrow_exception(cause);
  return issued;
}

}  // namespace annulus::testing
