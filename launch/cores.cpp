#include "launch/cores.h"

#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string_view>

#include "runtime/core/error.h"

namespace annulus {
namespace {

constexpr int kMostCpus = 4096;
constexpr const char* kRestarted = "ANNULUS_RESTARTED";

/// A cpu_set_t of any size, which the system's own type is not.
struct Mask {
  Mask() { clear(); }
  void clear() { std::fill(std::begin(words), std::end(words), 0ul); }
  static constexpr int kBits = 8 * sizeof(unsigned long);
  bool has(int cpu) const { return words[cpu / kBits] >> (cpu % kBits) & 1ul; }
  void add(int cpu) { words[cpu / kBits] |= 1ul << (cpu % kBits); }
  cpu_set_t* set() { return reinterpret_cast<cpu_set_t*>(words); }
  unsigned long words[kMostCpus / kBits];
};

std::optional<CpuSet> cpus_of(pid_t process) {
  Mask mask;
  if (sched_getaffinity(process, sizeof(mask.words), mask.set()) != 0) return std::nullopt;
  CpuSet cpus;
  for (int cpu = 0; cpu < kMostCpus; ++cpu) {
    if (mask.has(cpu)) cpus.push_back(cpu);
  }
  return cpus;
}

#ifdef _OPENMP
/// The processors among which OpenMP places threads; none where it was not asked to bind them (OMP_PROC_BIND,
/// OMP_PLACES, GOMP_CPU_AFFINITY). Then it has bound this one when the program was loaded.
CpuSet openmp_places() {
  if (omp_get_proc_bind() == omp_proc_bind_false) return {};
  std::set<int> cpus;
  for (int place = 0; place < omp_get_num_places(); ++place) {
    CpuSet of_place(static_cast<std::size_t>(omp_get_place_num_procs(place)));
    omp_get_place_proc_ids(place, of_place.data());
    cpus.insert(of_place.begin(), of_place.end());
  }
  return {cpus.begin(), cpus.end()};
}
#else
CpuSet openmp_places() { return {}; }
#endif

struct Ancestor {
  std::string name;
  pid_t parent = 0;
};

std::optional<Ancestor> ancestor(pid_t process) {
  std::ifstream file(fmt::format("/proc/{}/stat", process));
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  const std::size_t open = line.find('('), close = line.rfind(')');  // the name may hold brackets
  if (open == std::string::npos || close == std::string::npos) return std::nullopt;
  Ancestor found{line.substr(open + 1, close - open - 1), 0};
  char state = 0;
  std::istringstream(line.substr(close + 1)) >> state >> found.parent;
  return found;
}

/// The Open MPI daemon (or mpirun itself) that started this process, perhaps through scripts.
std::optional<pid_t> mpi_launcher() {
  static const std::set<std::string, std::less<>> kLaunchers = {"mpirun",  "mpiexec", "orterun", "orted",
                                                                "prterun", "prte",    "prted"};
  pid_t process = getppid();
  for (int depth = 0; depth < 16 && process > 1; ++depth) {
    const std::optional<Ancestor> found = ancestor(process);
    if (!found) return std::nullopt;
    if (kLaunchers.contains(found->name)) return process;
    process = found->parent;
  }
  return std::nullopt;
}

}  // namespace

CpuSet allowed_cpus() {
  std::optional<CpuSet> cpus = cpus_of(0);
  if (!cpus || cpus->empty()) throw DeviceError("the system does not tell which processors this process may use");
  return *cpus;
}

void bind_to(const CpuSet& cpus) {
  Mask mask;
  for (int cpu : cpus) mask.add(cpu);
  if (sched_setaffinity(0, sizeof(mask.words), mask.set()) != 0) {
    throw DeviceError(fmt::format("binding to {} processors failed: {}", cpus.size(), std::strerror(errno)));
  }
}

CpuSet launch_cpus() {
  // Open MPI 4 tells when --bind-to was given.
  const bool asked_for = std::getenv("OMPI_MCA_hwloc_base_binding_policy") != nullptr;
  const std::optional<pid_t> launcher = asked_for ? std::nullopt : mpi_launcher();
  const std::optional<CpuSet> cpus = launcher ? cpus_of(*launcher) : std::nullopt;
  if (cpus && !cpus->empty()) return *cpus;
  const CpuSet places = openmp_places();
  return places.empty() ? allowed_cpus() : places;
}

void restart_unbound(char** arguments) {
  const CpuSet cpus = launch_cpus();
  if (std::getenv(kRestarted) != nullptr || (allowed_cpus() == cpus && openmp_places().empty())) return;
  bind_to(cpus);
  if (allowed_cpus() != cpus) return;
  setenv(kRestarted, "1", 1);
  setenv("OMP_PROC_BIND", "false", 1);
  execv("/proc/self/exe", arguments);  // which may fail: the program is only slower then
}

std::vector<CpuSet> cores_of(const CpuSet& cpus) {
  std::map<std::string, CpuSet> by_siblings;
  std::vector<std::string> order;
  for (int cpu : cpus) {
    std::ifstream file(fmt::format("/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", cpu));
    std::string siblings;
    if (!std::getline(file, siblings)) siblings = fmt::format("{}", cpu);  // untold: a core of its own
    if (by_siblings[siblings].empty()) order.push_back(siblings);
    by_siblings[siblings].push_back(cpu);
  }
  std::vector<CpuSet> cores;
  for (const std::string& siblings : order) cores.push_back(by_siblings[siblings]);
  return cores;
}

int quota_cores(const std::string& root) {
  double quota = 0, period = 0;
  std::string text;
  if (std::ifstream file(root + "/sys/fs/cgroup/cpu.max"); file >> text >> period && text != "max") {
    quota = std::strtod(text.c_str(), nullptr);
  } else {  // control groups version 1
    std::ifstream quota_file(root + "/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
    std::ifstream period_file(root + "/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    if (!(quota_file >> quota && period_file >> period)) quota = 0;
  }
  if (quota <= 0 || period <= 0) return std::numeric_limits<int>::max();
  return std::max(1, static_cast<int>(quota / period));
}

CoreShare share_of(const std::vector<CpuSet>& pools, std::size_t local_rank, int quota) {
  const CpuSet& pool = pools[local_rank];
  const auto first = pools.begin();
  const auto sharing = std::count(first, pools.end(), pool);
  const auto place = std::count(first, first + static_cast<std::ptrdiff_t>(local_rank), pool);
  const std::vector<CpuSet> cores = cores_of(pool);
  const auto count = static_cast<std::ptrdiff_t>(cores.size());
  const int allowed = std::max(1, quota / static_cast<int>(pools.size()));
  if (sharing > count) return {1, {}};

  CoreShare share;
  const std::ptrdiff_t begin = count * place / sharing, end = count * (place + 1) / sharing;
  share.threads = std::min(allowed, static_cast<int>(end - begin));
  for (std::ptrdiff_t core = begin; core < end; ++core) {
    const CpuSet& threads = cores[static_cast<std::size_t>(core)];
    share.cpus.insert(share.cpus.end(), threads.begin(), threads.end());
  }
  return share;
}

}  // namespace annulus
