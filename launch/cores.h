#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace annulus {

/// A set of this host's processors, by number.
using CpuSet = std::vector<int>;

/// The processors that this process may run on.
CpuSet allowed_cpus();
/// Binds this process (and the threads it makes from now on) to `cpus`. Throws DeviceError.
void bind_to(const CpuSet& cpus);

/// The processors that this rank may share with the other ranks of its host. `mpirun` binds ranks to one core each
/// where it is not told otherwise: then these are mpirun's own, else those of `allowed_cpus`.
CpuSet launch_cpus();

/// Starts the program again, with `main`'s arguments and once at most, where it was bound to less than `launch_cpus`,
/// by mpirun or by OpenMP, which is told to bind no threads: ranks that share a host would bind theirs to the same
/// cores. OpenMP counts processors when the program is loaded: threads that are more of them it puts to sleep behind
/// each loop, and waking one takes 70 us.
void restart_unbound(char** arguments);

/// Processors that are threads of one core together, in the order of their first.
std::vector<CpuSet> cores_of(const CpuSet& cpus);

/// Whole cores that a control group's quota of processor time (`docker run --cpus`) amounts to, at least 1; very many
/// where there is none. `root` is where /proc and /sys are looked for.
int quota_cores(const std::string& root = "/");

/// What a rank gets of its host.
struct CoreShare {
  int threads = 1;
  CpuSet cpus;  ///< to be bound to; empty where ranks outnumber cores, and the system had better place them
};

/// Splits the cores of a host evenly over its ranks: no core has threads of two ranks, unless ranks outnumber cores.
/// `pools[i]` is the `launch_cpus` of local rank i; ranks with the same pool share it. `quota` limits the host's cores.
CoreShare share_of(const std::vector<CpuSet>& pools, std::size_t local_rank, int quota);

}  // namespace annulus
