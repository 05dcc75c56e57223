#include "launch/process.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "collectives/mpi_communicator.h"
#include "collectives/mpi_runtime.h"

namespace annulus {
namespace {

/// The first of these variables that holds a number.
int environment_number(std::initializer_list<const char*> names, int otherwise) {
  for (const char* name : names) {
    if (const char* text = std::getenv(name); text != nullptr) {
      char* end = nullptr;
      const long value = std::strtol(text, &end, 10);
      if (end != text) return static_cast<int>(value);
    }
  }
  return otherwise;
}

/// Idle ranks that spin take the core from those that compute; MPI reads this when it starts.
void give_way_where_crowded() {
  const int cores = std::min(static_cast<int>(cores_of(launch_cpus()).size()), quota_cores());
  if (launch_environment().local_size > cores) setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
}

/// What each rank tells the others about itself.
struct Introduction {
  char host[256];
  std::uint64_t cpus[64];
};

constexpr int kWordBits = 64;

Introduction introduce(const std::string& host, const CpuSet& cpus) {
  Introduction mine{};
  std::strncpy(mine.host, host.c_str(), sizeof(mine.host) - 1);
  for (int cpu : cpus) mine.cpus[cpu / kWordBits] |= std::uint64_t{1} << (cpu % kWordBits);
  return mine;
}

CpuSet cpus_of(const Introduction& introduction) {
  CpuSet cpus;
  for (int cpu = 0; cpu < static_cast<int>(std::size(introduction.cpus)) * kWordBits; ++cpu) {
    if (introduction.cpus[cpu / kWordBits] >> (cpu % kWordBits) & 1u) cpus.push_back(cpu);
  }
  return cpus;
}

std::atomic<bool>& stop_flag() {
  static std::atomic<bool> came{false};  // a signal handler can be given nothing else
  static_assert(std::atomic<bool>::is_always_lock_free);
  return came;
}

}  // namespace

Launch launch_environment() {
  Launch launch;
  launch.rank = environment_number({"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"}, 0);
  launch.size = environment_number({"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"}, 1);
  launch.local_size = environment_number(
      {"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "PMI_LOCAL_SIZE", "SLURM_STEP_TASKS_PER_NODE"}, 1);
  return launch;
}

Process::Process() {
  give_way_where_crowded();
  const CpuSet pool = launch_cpus();
  runtime_ = std::make_unique<MpiRuntime>();
  world_ = mpi_world();
  const std::vector<Introduction> all = gather(introduce(runtime_->host(), pool));
  for (const Introduction& one : all) hosts_.emplace_back(one.host);
  for (int other = 0; other < size(); ++other) {
    if (hosts_[static_cast<std::size_t>(other)] != hosts_[static_cast<std::size_t>(rank())]) continue;
    if (other == rank()) local_rank_ = static_cast<int>(pools_.size());
    pools_.push_back(cpus_of(all[static_cast<std::size_t>(other)]));
  }
  local_size_ = static_cast<int>(pools_.size());
}

Process::~Process() {
  // Before MPI ends: mpirun may then end this process, because another has left with an error.
  std::fflush(stdout);
}

CoreShare Process::share() const { return share_of(pools_, static_cast<std::size_t>(local_rank_), quota_cores()); }

int Process::claim_cores(std::int64_t asked) {
  const CoreShare share = this->share();
  if (asked > static_cast<std::int64_t>(share.cpus.size())) {
    bind_to(pools_[static_cast<std::size_t>(local_rank_)]);  // more than its share: the system places them
    return static_cast<int>(asked);
  }
  bind_to(share.cpus.empty() ? pools_[static_cast<std::size_t>(local_rank_)] : share.cpus);
  return asked > 0 ? static_cast<int>(asked) : share.threads;
}

std::string Process::text_of(int root, std::string text) {
  text.resize((text.size() + 3) / 4 * 4);
  std::int32_t words = static_cast<std::int32_t>(text.size() / 4);
  wait(world_->broadcast(&words, 1, DType::i32, root));
  text.resize(static_cast<std::size_t>(words) * 4);
  wait(world_->broadcast(text.data(), words, DType::i32, root));
  text.erase(text.find_last_not_of('\0') + 1);
  return text;
}

void Process::agree(const std::function<void()>& action) {
  std::vector<std::string> problems;
  try {
    action();
  } catch (const ConfigError& error) {
    problems = error.problems();
  }
  const std::vector<std::int32_t> failed = gather(static_cast<std::int32_t>(!problems.empty()));
  const auto first = std::find(failed.begin(), failed.end(), 1);
  if (first == failed.end()) return;

  const int root = static_cast<int>(first - failed.begin());
  std::string text;
  for (const std::string& problem : problems) text += problem + '\0';
  text = text_of(root, std::move(text));

  problems.clear();
  const bool first_rank = root == 0;  // who speaks for all
  for (std::size_t begin = 0, size = 0; begin < text.size(); begin += size + 1) {
    const std::string problem(text.c_str() + begin);
    size = problem.size();
    problems.push_back(
        first_rank ? problem : fmt::format("rank {} on {}: {}", root, hosts_[static_cast<std::size_t>(root)], problem));
  }
  throw AgreedConfigError(problems);
}

std::string Process::name() const {
  return place_.empty() ? fmt::format("[rank {}]", rank()) : fmt::format("[rank {} | {}]", rank(), place_);
}

void Process::end_job(int code) const { runtime_->end_job(code); }

void watch_for_stop_signals() {
  struct sigaction action {};
  action.sa_handler = [](int) { stop_flag().store(true); };
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaction(signal, &action, nullptr);
}

bool stop_signal_came() { return stop_flag().load(); }

}  // namespace annulus
