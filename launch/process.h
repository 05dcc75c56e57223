#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "launch/cores.h"
#include "runtime/core/communicator.h"
#include "runtime/core/error.h"

namespace annulus {

class MpiRuntime;

/// What the launcher (mpirun, srun) says about this process before MPI is started; a job of one process by itself.
struct Launch {
  int rank = 0;
  int size = 1;
  int local_size = 1;  ///< ranks on this host; 1 where the launcher does not say
};
Launch launch_environment();

/// What every rank throws alike, so that the job can end in good order.
class Agreed {};

class AgreedConfigError : public ConfigError, public Agreed {
 public:
  using ConfigError::ConfigError;
};

class AgreedError : public Error, public Agreed {
 public:
  using Error::Error;
};

/// One rank of a job: MPI from start to end, the other ranks, this host's share. One in a process, made by main().
class Process {
 public:
  /// Starts MPI; where ranks outnumber cores, such that waiting ranks give theirs away. Collective.
  Process();
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  int rank() const { return world_->rank(); }
  int size() const { return world_->size(); }
  bool is_first() const { return rank() == 0; }
  Communicator& world() { return *world_; }

  /// Memory that the ranks of this host share.
  SharedAllocator shared_memory() {
    return [this](std::int64_t bytes) { return world_->allocate_shared(bytes); };
  }

  /// Host name of every rank, by rank.
  const std::vector<std::string>& hosts() const { return hosts_; }
  int local_rank() const { return local_rank_; }
  int local_size() const { return local_size_; }

  /// Binds this rank to its share of the host's cores and returns its threads: `asked`, or as many as it has cores
  /// where that is 0. To be called once, before any thread is started.
  int claim_cores(std::int64_t asked);

  /// Whether this host has more ranks than cores, which take turns then.
  bool crowded() const { return share().cpus.empty(); }

  /// Runs `action` on every rank. Where it throws ConfigError on any, all ranks throw AgreedConfigError, with the
  /// problems of the lowest such rank (which is named where others had none). Collective; `action` must not
  /// communicate.
  void agree(const std::function<void()>& action);

  /// What rank `root` has; without zero bytes at its end. Collective.
  std::string text_of(int root, std::string mine);

  /// Every rank's `mine`, by rank; T is made of whole 32-bit words. Collective.
  template <class T>
  std::vector<T> gather(const T& mine) {
    static_assert(sizeof(T) % 4 == 0 && std::is_trivially_copyable_v<T>);
    std::vector<T> all(static_cast<std::size_t>(size()));
    wait(world_->all_gather(&mine, all.data(), sizeof(T) / 4, DType::i32));
    return all;
  }

  /// Where this rank is in the mesh, for messages: `dp 0 cp 1 tp 1`.
  void set_place(std::string place) { place_ = std::move(place); }
  /// `[rank 3 | dp 0 cp 1 tp 1]`
  std::string name() const;

  /// Ends all ranks of the job with this exit code. From any thread.
  [[noreturn]] void end_job(int code) const;

 private:
  CoreShare share() const;

  std::unique_ptr<MpiRuntime> runtime_;
  std::unique_ptr<Communicator> world_;
  std::vector<std::string> hosts_;
  std::vector<CpuSet> pools_;  ///< of the ranks of this host
  int local_rank_ = 0, local_size_ = 1;
  std::string place_;
};

/// From now on SIGTERM, SIGINT and SIGUSR1 (which mpirun hands on to its ranks) do not end this process but are
/// remembered.
void watch_for_stop_signals();
/// Whether one of them has come.
bool stop_signal_came();

}  // namespace annulus
