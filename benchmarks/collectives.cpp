// Times collectives over all ranks and prints a table in Markdown: mpirun -n N benchmark_collectives [LARGEST_MIB].
// Ours, as a training step would have them (buffers in shared memory where there is any), by messages alone, and from
// buffers of this process alone; the MPI library's own; and, on one host, a bare loop over a shared window of MPI's:
// the least that a collective in shared memory can take. Medians of rounds in which the candidates take turns.
#define OMPI_SKIP_MPICXX 1
#include <fmt/format.h>
#include <mpi.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "collectives/clock.h"
#include "collectives/mpi_communicator.h"
#include "collectives/mpi_runtime.h"

namespace annulus {
namespace {

constexpr int kRounds = 11;
constexpr CollectiveKind kKinds[] = {CollectiveKind::all_reduce, CollectiveKind::all_gather,
                                     CollectiveKind::reduce_scatter, CollectiveKind::shift};

/// M of one call: of the full tensor, or of the message of a shift.
struct Call {
  CollectiveKind kind;
  std::int64_t bytes;
  float *send, *receive;
};

void run_on(Communicator& world, const Call& call) {
  const std::int64_t count = call.bytes / 4, part = count / world.size();
  switch (call.kind) {
    case CollectiveKind::all_reduce:
      return wait(world.all_reduce(call.send, call.receive, count, DType::f32, Reduction::sum));
    case CollectiveKind::all_gather:
      return wait(world.all_gather(call.send, call.receive, part, DType::f32));
    case CollectiveKind::reduce_scatter:
      return wait(world.reduce_scatter(call.send, call.receive, part, DType::f32, Reduction::sum));
    default:
      return wait(world.shift(call.send, call.receive, count, DType::f32, 1));
  }
}

void run_on_library(const Call& call) {
  int rank = 0, size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  const int count = static_cast<int>(call.bytes / 4), part = count / size;
  switch (call.kind) {
    case CollectiveKind::all_reduce:
      MPI_Allreduce(MPI_IN_PLACE, call.receive, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
      return;
    case CollectiveKind::all_gather:
      MPI_Allgather(call.send, part, MPI_FLOAT, call.receive, part, MPI_FLOAT, MPI_COMM_WORLD);
      return;
    case CollectiveKind::reduce_scatter:
      MPI_Reduce_scatter_block(call.send, call.receive, part, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
      return;
    default:
      MPI_Sendrecv(call.send, count, MPI_FLOAT, (rank + 1) % size, 0, call.receive, count, MPI_FLOAT,
                   (rank + size - 1) % size, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
  }
}

/// Plain loops over memory that all ranks of one host see: a flag, the work, a flag.
class BareLoop {
 public:
  BareLoop(std::int64_t largest_bytes, int rank, int size) : rank_(rank), size_(size) {
    constexpr std::int64_t kFlag = 4096;
    const std::int64_t bytes = kFlag + 2 * largest_bytes;
    void* own = nullptr;
    MPI_Win_allocate_shared(bytes, 1, MPI_INFO_NULL, MPI_COMM_WORLD, &own, &window_);
    for (int other = 0; other < size; ++other) {
      MPI_Aint length = 0;
      int unit = 0;
      void* memory = nullptr;
      MPI_Win_shared_query(window_, other, &length, &unit, &memory);
      auto* begin = static_cast<std::byte*>(memory);
      flags_.push_back(reinterpret_cast<std::atomic<std::int64_t>*>(begin));
      sends_.push_back(reinterpret_cast<float*>(begin + kFlag));
      receives_.push_back(reinterpret_cast<float*>(begin + kFlag + largest_bytes));
    }
    *flags_[rank] = 0;
    std::fill_n(sends_[rank], largest_bytes / 4, 1.0f);
    std::fill_n(receives_[rank], largest_bytes / 4, 0.0f);
    MPI_Barrier(MPI_COMM_WORLD);
  }
  BareLoop(const BareLoop&) = delete;
  BareLoop& operator=(const BareLoop&) = delete;
  ~BareLoop() { MPI_Win_free(&window_); }

  void run(const Call& call) {
    meet();
    const std::int64_t count = call.bytes / 4, part = count / size_, begin = part * rank_;
    switch (call.kind) {
      case CollectiveKind::all_reduce:
        sum(sends_[rank_] + begin, begin, part);
        for (int other = 1; other < size_; ++other)
          std::copy_n(sends_[rank_] + begin, part, sends_[(rank_ + other) % size_] + begin);
        break;
      case CollectiveKind::all_gather:
        for (int other = 0; other < size_; ++other) std::copy_n(sends_[other], part, receives_[rank_] + other * part);
        break;
      case CollectiveKind::reduce_scatter:
        sum(receives_[rank_], begin, part);
        break;
      default:
        std::copy_n(sends_[(rank_ + size_ - 1) % size_], count, receives_[rank_]);
    }
    meet();
  }

 private:
  void sum(float* target, std::int64_t begin, std::int64_t count) const {
    const float *one = sends_[0] + begin, *other = sends_[size_ > 1 ? 1 : 0] + begin;
    for (std::int64_t i = 0; i < count; ++i) target[i] = one[i] + other[i];
    for (int rank = 2; rank < size_; ++rank)
      for (std::int64_t i = 0; i < count; ++i) target[i] += sends_[rank][begin + i];
  }
  void meet() {
    flags_[rank_]->store(++met_, std::memory_order_release);
    for (const auto* flag : flags_)
      for (int spins = 0; flag->load(std::memory_order_acquire) < met_; ++spins)
        if (spins > 1000) std::this_thread::yield();
  }

  int rank_, size_;
  MPI_Win window_ = MPI_WIN_NULL;
  std::vector<std::atomic<std::int64_t>*> flags_;
  std::vector<float*> sends_, receives_;
  std::int64_t met_ = 0;
};

struct Candidate {
  std::string name;
  std::function<void(const Call&)> run;
  float *send, *receive;
};

/// Seconds of one call, the slowest rank's, of `calls` in a row.
double seconds_of(const Candidate& candidate, Call call, int calls) {
  call.send = candidate.send;
  call.receive = call.kind == CollectiveKind::all_reduce ? call.send : candidate.receive;
  MPI_Barrier(MPI_COMM_WORLD);
  const double begin = steady_seconds();
  for (int i = 0; i < calls; ++i) candidate.run(call);
  double seconds = (steady_seconds() - begin) / calls;
  MPI_Allreduce(MPI_IN_PLACE, &seconds, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  return seconds;
}

std::string cells_of(const std::vector<Candidate>& candidates, const Call& call) {
  std::vector<std::vector<double>> seconds(candidates.size());
  for (int round = 0; round <= kRounds; ++round)
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      const int calls = round == 0 ? 1 : std::clamp(static_cast<int>(2e-3 / seconds[i].front()), 1, 200);
      seconds[i].push_back(seconds_of(candidates[i], call, calls));
    }
  std::string cells;
  for (std::vector<double>& one : seconds) {
    std::sort(one.begin() + 1, one.end());  // the first warmed up
    cells += fmt::format(" {:.1f} |", one[1 + kRounds / 2] * 1e6);
  }
  return cells;
}

void run(std::int64_t largest_bytes) {
  const auto ours = mpi_world();
  const auto messages = mpi_world({.window_slot_bytes = 0});
  const bool first = ours->rank() == 0;
  const auto shared = ours->allocate_shared(2 * largest_bytes);
  std::vector<float> own(static_cast<std::size_t>(2 * largest_bytes / 4), 1.0f);
  float *send = own.data(), *receive = send + largest_bytes / 4;
  std::vector<Candidate> candidates;
  if (shared) {
    auto* memory = reinterpret_cast<float*>(shared.get());
    std::fill_n(memory, 2 * largest_bytes / 4, 1.0f);
    candidates.push_back({"ours", [&](const Call& c) { run_on(*ours, c); }, memory, memory + largest_bytes / 4});
  }
  candidates.push_back({"ours, private buffers", [&](const Call& c) { run_on(*ours, c); }, send, receive});
  candidates.push_back({"ours, messages", [&](const Call& c) { run_on(*messages, c); }, send, receive});
  candidates.push_back({"the library's own", run_on_library, send, receive});
  MPI_Comm host = MPI_COMM_NULL;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host);
  int on_host = 0;
  MPI_Comm_size(host, &on_host);
  MPI_Comm_free(&host);
  std::unique_ptr<BareLoop> bare;
  if (on_host == ours->size()) {
    bare = std::make_unique<BareLoop>(largest_bytes, ours->rank(), ours->size());
    candidates.push_back({"a bare loop", [&](const Call& c) { bare->run(c); }, nullptr, nullptr});
  }
  std::string names, rule;
  for (const Candidate& candidate : candidates) {
    names += fmt::format(" {} |", candidate.name);
    rule += "---|";
  }
  if (first)
    fmt::print("{} ranks, microseconds of a call.\n\n| collective | KiB |{}\n|---|---|{}\n", ours->size(), names, rule);
  for (const CollectiveKind kind : kKinds)
    for (const std::int64_t kib : {8, 64, 256, 1024, 4096, 16384, 65536}) {
      const std::int64_t bytes = kib * 1024;
      if (bytes > largest_bytes) continue;
      const std::string cells = cells_of(candidates, {kind, bytes, nullptr, nullptr});
      if (first) fmt::print("| {} | {} |{}\n", name_of(kind), kib, cells);
      std::fflush(stdout);
    }
}

}  // namespace
}  // namespace annulus

int main(int count, char** arguments) {
  const annulus::MpiRuntime mpi;
  annulus::run((count > 1 ? std::atoll(arguments[1]) : 64) << 20);
}
