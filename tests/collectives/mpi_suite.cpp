// The suite over MPI: mpirun -n N test_mpi_collectives. Prints the seed; exit code 0 where every value is right.
#include <fmt/format.h>

#include <atomic>
#include <cmath>
#include <cstdio>
#include <exception>
#include <random>
#include <stdexcept>

#include "collectives/clock.h"
#include "collectives/mpi_communicator.h"
#include "collectives/mpi_runtime.h"
#include "collectives/watchdog.h"
#include "tests/collectives/suite.h"

namespace {

/// Every rank's seed is that of rank 0.
std::uint64_t common_seed(annulus::Communicator& world) {
  auto seed = static_cast<std::int32_t>(std::random_device{}());
  annulus::wait(world.broadcast(&seed, 1, annulus::DType::i32, 0));
  return static_cast<std::uint32_t>(seed);
}

/// Processes of one host read one steady clock.
void check_clock(annulus::Communicator& world) {
  const annulus::ClockOffset offset = annulus::align_clock(world);
  if (std::abs(offset.seconds) > offset.error_seconds + 1e-9) {
    throw std::runtime_error(fmt::format("a clock {} s apart, known to {} s", offset.seconds, offset.error_seconds));
  }
}

void check_watchdog(annulus::Communicator& world) {
  std::atomic<bool> told{false};
  {
    annulus::Watchdog watchdog(world.rank(), world.size(), annulus::exchange_over(world), [&](auto&) { told = true; });
  }
  if (told) throw std::runtime_error("the watchdog takes a clean end for a failure");
}

using annulus::BufferMemory;

void run(const annulus::MpiOptions& mpi, const char* what, BufferMemory buffers = BufferMemory::own) {
  const auto world = annulus::mpi_world(mpi);
  annulus::SuiteOptions options;
  options.buffers = buffers;
  if (world->has_hierarchy()) options.order = annulus::SumOrder::any;
  options.seed = common_seed(*world);
  if (world->rank() == 0) {
    fmt::print("{} ranks, {}: seed {}\n", world->size(), what, options.seed);
    std::fflush(stdout);
  }
  annulus::check_collectives(*world, options);
  annulus::check_splits(*world);
  annulus::check_counters(*world);
  annulus::check_refusals(*world);
  check_clock(*world);
  check_watchdog(*world);
}

}  // namespace

int main() {
  const annulus::MpiRuntime mpi;
  try {
    run({}, "as shipped");
    run({}, "in shared memory", BufferMemory::shared);
    run({.window_slot_bytes = 512}, "a window of many rounds");
    run({.window_slot_bytes = 512}, "now in shared memory, now not", BufferMemory::mixed);
    run({.host_salt = static_cast<std::uint64_t>(mpi.rank() / 2)}, "as on hosts of two", BufferMemory::mixed);
    run({.window_slot_bytes = 0}, "messages");
    run({.largest_count = 100, .small_bytes = 0, .scratch_bytes = 700, .window_slot_bytes = 0},
        "messages of derived types, many segments");
  } catch (const std::exception& error) {
    fmt::print(stderr, "[rank {}] {}\n", mpi.rank(), error.what());
    mpi.end_job(1);
  }
  if (mpi.rank() == 0) fmt::print("{}, MPI {}: passed\n", mpi.library_version(), mpi.standard_version());
}
