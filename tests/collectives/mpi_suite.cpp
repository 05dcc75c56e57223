// The suite over MPI: mpirun -n N test_mpi_collectives. Prints the seed; exit code 0 where every value is right.
#include <fmt/format.h>

#include <cstdio>
#include <exception>
#include <random>

#include "collectives/mpi_communicator.h"
#include "collectives/mpi_runtime.h"
#include "tests/collectives/suite.h"

namespace {

/// Every rank's seed is that of rank 0.
std::uint64_t common_seed(annulus::Communicator& world) {
  auto seed = static_cast<std::int32_t>(std::random_device{}());
  annulus::wait(world.broadcast(&seed, 1, annulus::DType::i32, 0));
  return static_cast<std::uint32_t>(seed);
}

void run(const annulus::MpiOptions& mpi, const char* what) {
  const auto world = annulus::mpi_world(mpi);
  annulus::SuiteOptions options;
  options.seed = common_seed(*world);
  if (world->rank() == 0) {
    fmt::print("{} ranks, {}: seed {}\n", world->size(), what, options.seed);
    std::fflush(stdout);
  }
  annulus::check_collectives(*world, options);
  annulus::check_splits(*world);
  annulus::check_counters(*world);
  annulus::check_refusals(*world);
}

}  // namespace

int main() {
  const annulus::MpiRuntime mpi;
  try {
    run({}, "as shipped");
    run({.window_slot_bytes = 512}, "a window of many rounds");
    run({.window_slot_bytes = 0}, "messages");
    run({.largest_count = 100, .small_bytes = 0, .scratch_bytes = 700, .window_slot_bytes = 0},
        "messages of derived types, many segments");
  } catch (const std::exception& error) {
    fmt::print(stderr, "[rank {}] {}\n", mpi.rank(), error.what());
    mpi.end_job(1);
  }
  if (mpi.rank() == 0) fmt::print("{}, MPI {}: passed\n", mpi.library_version(), mpi.standard_version());
}
