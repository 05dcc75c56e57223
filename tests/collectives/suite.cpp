#include "tests/collectives/suite.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <memory_resource>
#include <random>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace annulus {
namespace {

using Random = std::mt19937_64;

void require(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error(what);
}

std::int64_t below(Random& random, std::int64_t bound) {
  return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(bound));
}

constexpr CollectiveKind kKinds[] = {
    CollectiveKind::all_reduce, CollectiveKind::all_gather, CollectiveKind::reduce_scatter, CollectiveKind::all_to_all,
    CollectiveKind::broadcast,  CollectiveKind::gather,     CollectiveKind::scatter,        CollectiveKind::reduce,
    CollectiveKind::send,       CollectiveKind::shift};

constexpr DType kDTypes[] = {DType::f32, DType::f64, DType::i32, DType::bf16, DType::f16};

/// One transfer, drawn alike on all ranks.
struct Case {
  CollectiveKind kind;
  DType dtype;
  Reduction reduction;
  std::int64_t count;
  int group;
  int peer;   // root, distance, or receiver of a message
  int other;  // sender of a message
  bool in_place;
  std::uint64_t seed;
};

/// A group that this rank is in, and what tells it from the other groups of the same split.
struct TestGroup {
  Communicator* communicator;
  std::uint64_t color;
};

class Job {
 public:
  virtual ~Job() = default;
  /// Null where this rank takes no part.
  virtual Communicator::Pending start() = 0;
  virtual void verify() = 0;
  /// For all_reduce: the bits of the result; else 0.
  virtual std::uint32_t bits() const = 0;
  Communicator::Pending pending;
};

template <class T>
class TypedJob final : public Job {
 public:
  TypedJob(const Case& drawn, const TestGroup& group, SumOrder order, std::pmr::memory_resource* buffers)
      : case_(drawn), group_(group), world_(*group.communicator), order_(order), send_(buffers), memory_(buffers) {}

  Communicator::Pending start() override {
    const int rank = world_.rank();
    const int size = world_.size();
    const CollectiveKind kind = case_.kind;
    const bool root = rank == case_.peer;
    const std::int64_t one = case_.count;
    const bool sends_all = kind == CollectiveKind::reduce_scatter || kind == CollectiveKind::all_to_all ||
                           (kind == CollectiveKind::scatter && root);
    const bool receives_all = kind == CollectiveKind::all_gather || kind == CollectiveKind::all_to_all ||
                              (kind == CollectiveKind::gather && root);
    const std::vector<T> values = input(rank, sends_all ? one * size : one);
    send_.assign(values.begin(), values.end());
    received_ = receives_all ? one * size : one;
    const bool in_place = case_.in_place || kind == CollectiveKind::broadcast;
    const auto memory = in_place ? std::max<std::int64_t>(received_, std::ssize(send_)) : received_;
    memory_.assign(memory + 2 * kGuard, kUntouched);
    T* receive = memory_.data() + kGuard;
    const T* send = send_.data();
    if (in_place) {
      const std::int64_t part = one * rank;
      if (kind == CollectiveKind::all_reduce || kind == CollectiveKind::broadcast ||
          (kind == CollectiveKind::reduce && root)) {
        send = std::copy(send_.begin(), send_.end(), receive) - send_.size();
      } else if (receives_all && kind != CollectiveKind::all_to_all) {
        std::copy(send_.begin(), send_.end(), receive + part);
        send = receive + part;
      } else if (kind == CollectiveKind::reduce_scatter || (kind == CollectiveKind::scatter && root)) {
        send = std::copy(send_.begin(), send_.end(), receive) - send_.size();
        receive += part;
      }
    }
    receive_ = receive;
    send_used_ = send;
    return begin(send, receive);
  }

  void verify() override {
    const std::vector<T> expected = reference();
    for (std::size_t i = 0; i < expected.size(); ++i) compare(receive_[i], expected[i], i);
    for (std::int64_t i = 0; expected.empty() && i < received_; ++i) {
      require(same(receive_[i], kUntouched), name("received what is not for this rank"));
    }
    for (std::int64_t i = 0; i < kGuard; ++i) {
      require(same(memory_[i], kUntouched) && same(memory_[memory_.size() - 1 - i], kUntouched),
              name("wrote outside of its buffer"));
    }
    if (send_used_ == send_.data()) {
      const std::vector<T> values = input(world_.rank(), std::ssize(send_));
      require(std::equal(send_.begin(), send_.end(), values.begin()), name("changed what was sent"));
    }
  }

  std::uint32_t bits() const override {
    std::uint32_t hash = 2166136261U;
    if (case_.kind != CollectiveKind::all_reduce) return hash;
    const auto* bytes = reinterpret_cast<const unsigned char*>(receive_);
    for (std::size_t i = 0; i < case_.count * sizeof(T); ++i) hash = (hash ^ bytes[i]) * 16777619U;
    return hash;
  }

 private:
  static constexpr std::int64_t kGuard = 4;
  static constexpr T kUntouched = static_cast<T>(-77777777);
  static constexpr double kLargest = kIsHalf<T> ? 1e3 : 1e6;  // f16 ends at 65504

  static bool same(T one, T other) { return std::memcmp(&one, &other, sizeof(T)) == 0; }

  std::string name(const std::string& what) const {
    return fmt::format("{} {} {} count={} size={} rank={} group={} peer={} other={} in_place={}: {}",
                       name_of(case_.kind), name_of(case_.dtype), name_of(case_.reduction), case_.count, world_.size(),
                       world_.rank(), case_.group, case_.peer, case_.other, case_.in_place, what);
  }

  /// What `rank` sends: any rank can compute it.
  std::vector<T> input(int rank, std::int64_t count) const {
    Random random(case_.seed * 1000003 + group_.color * 8191 + static_cast<std::uint64_t>(rank));
    std::vector<T> values(count);
    for (T& value : values) {
      value = static_cast<T>((static_cast<double>(random() >> 11) * 0x1p-53 - 0.5) * kLargest);
    }
    return values;
  }

  Communicator::Pending begin(const T* send, T* receive) {
    const auto& [kind, dtype, reduction, count, group, peer, other, in_place, seed] = case_;
    switch (kind) {
      case CollectiveKind::all_reduce:
        return world_.all_reduce(send, receive, count, dtype, reduction);
      case CollectiveKind::all_gather:
        return world_.all_gather(send, receive, count, dtype);
      case CollectiveKind::reduce_scatter:
        return world_.reduce_scatter(send, receive, count, dtype, reduction);
      case CollectiveKind::all_to_all:
        return world_.all_to_all(send, receive, count, dtype);
      case CollectiveKind::broadcast:
        return world_.broadcast(receive, count, dtype, peer);
      case CollectiveKind::gather:
        return world_.gather(send, receive, count, dtype, peer);
      case CollectiveKind::scatter:
        return world_.scatter(send, receive, count, dtype, peer);
      case CollectiveKind::reduce:
        return world_.reduce(send, receive, count, dtype, reduction, peer);
      case CollectiveKind::shift:
        return world_.shift(send, receive, count, dtype, peer);
      default:
        break;
    }
    if (peer != other && world_.rank() == other) return world_.send(send, count, dtype, peer);
    if (peer != other && world_.rank() == peer) return world_.recv(receive, count, dtype, other);
    return nullptr;
  }

  /// What this rank must have received; empty where it receives nothing.
  std::vector<T> reference() const {
    const int rank = world_.rank();
    const int size = world_.size();
    const std::int64_t one = case_.count;
    std::vector<T> result;
    const auto append = [&](int from, std::int64_t whole, std::int64_t begin) {
      const std::vector<T> values = input(from, whole);
      result.insert(result.end(), values.begin() + begin, values.begin() + begin + one);
    };
    switch (case_.kind) {
      case CollectiveKind::all_reduce:
        return reduced(one, 0);
      case CollectiveKind::reduce:
        return rank == case_.peer ? reduced(one, 0) : result;
      case CollectiveKind::reduce_scatter:
        return reduced(one * size, one * rank);
      case CollectiveKind::gather:
        if (rank != case_.peer) return result;
        [[fallthrough]];
      case CollectiveKind::all_gather:
        for (int from = 0; from < size; ++from) append(from, one, 0);
        return result;
      case CollectiveKind::all_to_all:
        for (int from = 0; from < size; ++from) append(from, one * size, one * rank);
        return result;
      case CollectiveKind::scatter:
        append(case_.peer, one * size, one * rank);
        return result;
      case CollectiveKind::broadcast:
        append(case_.peer, one, 0);
        return result;
      case CollectiveKind::shift:
        append(((rank - case_.peer) % size + size) % size, one, 0);
        return result;
      default:
        break;
    }
    if (rank == case_.peer && case_.peer != case_.other) append(case_.other, one, 0);
    return result;
  }

  std::vector<T> reduced(std::int64_t whole, std::int64_t begin) const {
    std::vector<Wide<T>> result;  // halves are rounded once
    for (int from = 0; from < world_.size(); ++from) {
      const std::vector<T> values = input(from, whole);
      if (from == 0) result.assign(values.begin() + begin, values.begin() + begin + case_.count);
      for (std::int64_t i = 0; from > 0 && i < case_.count; ++i) {
        const Wide<T> value = values[begin + i];
        result[i] = case_.reduction == Reduction::sum ? result[i] + value : std::max(result[i], value);
      }
    }
    std::vector<T> rounded;
    for (const Wide<T> value : result) rounded.push_back(static_cast<T>(value));
    return rounded;
  }

  static double epsilon() {
    if constexpr (kIsHalf<T>) return std::is_same_v<T, BFloat16> ? 0x1p-7 : 0x1p-10;
    return static_cast<double>(std::numeric_limits<Wide<T>>::epsilon());
  }

  void compare(T actual, T expected, std::size_t at) const {
    if (same(actual, expected)) return;
    const bool sum = case_.reduction == Reduction::sum &&
                     (case_.kind == CollectiveKind::all_reduce || case_.kind == CollectiveKind::reduce ||
                      case_.kind == CollectiveKind::reduce_scatter);
    const double tolerance = world_.size() * kLargest * epsilon();
    require(order_ == SumOrder::any && sum && std::abs(double(actual) - double(expected)) <= tolerance,
            name(fmt::format("element {} is {}, must be {}", at, Wide<T>(actual), Wide<T>(expected))));
  }

  const Case case_;
  const TestGroup group_;
  Communicator& world_;
  const SumOrder order_;
  std::pmr::vector<T> send_;
  std::pmr::vector<T> memory_;
  const T* send_used_ = nullptr;
  T* receive_ = nullptr;
  std::int64_t received_ = 0;
};

std::unique_ptr<Job> make_job(const Case& drawn, const TestGroup& group, SumOrder order,
                              std::pmr::memory_resource* buffers) {
  if (drawn.dtype == DType::i32) return std::make_unique<TypedJob<std::int32_t>>(drawn, group, order, buffers);
  return dispatch_stored(drawn.dtype, [&]<class T>(T) -> std::unique_ptr<Job> {
    return std::make_unique<TypedJob<T>>(drawn, group, order, buffers);
  });
}

/// The world, rows and columns of a grid two wide, the world in reverse, and every rank alone.
struct TestGroups {
  explicit TestGroups(Communicator& world) {
    const int rank = world.rank();
    owned.push_back(world.split(rank / 2, rank));
    owned.push_back(world.split(rank % 2, rank));
    owned.push_back(world.split(-3, -rank));
    owned.push_back(world.split(rank, 0));
    groups.push_back({&world, 0});
    const int colors[] = {rank / 2, rank % 2, 0, rank};
    for (int i = 0; i < 4; ++i) groups.push_back({owned[i].get(), static_cast<std::uint64_t>(colors[i])});
  }
  std::vector<std::unique_ptr<Communicator>> owned;
  std::vector<TestGroup> groups;
};

std::int64_t draw_count(Random& random, std::int64_t largest) {
  const std::int64_t small[] = {0, 1, 2, 3, 5, 17};
  return below(random, 3) == 0 ? small[below(random, 6)] : below(random, largest + 1);
}

Case draw(Random& random, const SuiteOptions& options, int groups) {
  Case drawn{};
  drawn.kind = kKinds[below(random, std::size(kKinds))];
  drawn.dtype = kDTypes[below(random, std::size(kDTypes))];
  drawn.reduction = static_cast<Reduction>(below(random, 2));
  drawn.count = draw_count(random, options.largest_count);
  drawn.group = static_cast<int>(below(random, groups));
  drawn.peer = static_cast<int>(below(random, 840));
  drawn.other = static_cast<int>(below(random, 840));
  drawn.in_place = below(random, 2) == 0;
  drawn.seed = random();
  return drawn;
}

/// Tests the unfinished in an order of this rank's own until all are done.
void finish(std::vector<std::unique_ptr<Job>>& jobs, Random& order) {
  std::vector<Job*> unfinished;
  for (const auto& job : jobs) {
    if (job->pending) unfinished.push_back(job.get());
  }
  while (!unfinished.empty()) {
    Job*& job = unfinished[below(order, static_cast<std::int64_t>(unfinished.size()))];
    // Some are waited for to the end, while others lie untested: a backend must move these as well.
    if (below(order, 3) == 0) {
      wait(std::move(job->pending));
    } else if (!job->pending->test()) {
      continue;
    }
    job->pending.reset();
    std::swap(job, unfinished.back());
    unfinished.pop_back();
  }
}

void check_same_bits(std::vector<std::unique_ptr<Job>>& jobs, const std::vector<Case>& cases,
                     const TestGroups& groups) {
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    if (cases[i].kind != CollectiveKind::all_reduce) continue;
    Communicator& group = *groups.groups[cases[i].group].communicator;
    const std::uint32_t own = jobs[i]->bits();
    std::vector<std::uint32_t> all(group.size());
    wait(group.all_gather(&own, all.data(), 1, DType::i32));
    for (const std::uint32_t bits : all) require(bits == own, "all_reduce: the bits differ between ranks");
    wait(jobs[i]->start());
    require(jobs[i]->bits() == own, "all_reduce: the bits differ between runs");
  }
}

}  // namespace

void check_collectives(Communicator& world, const SuiteOptions& options) {
  TestGroups groups(world);
  Random random(options.seed);
  Random order(options.seed + 977 * (1 + static_cast<std::uint64_t>(world.rank())));
  const std::int64_t largest_buffer =
      (options.largest_count * world.size() + 64) * static_cast<std::int64_t>(sizeof(double));
  const std::int64_t shared_bytes = 2 * options.batch_size * largest_buffer;
  const auto shared = options.buffers == BufferMemory::own ? nullptr : world.allocate_shared(shared_bytes);
  for (int batch = 0; batch < options.batches; ++batch) {
    std::pmr::monotonic_buffer_resource in_shared(shared.get(), static_cast<std::size_t>(shared ? shared_bytes : 0));
    std::vector<std::unique_ptr<Job>> jobs;
    std::vector<Case> cases;
    for (int i = 0; i < options.batch_size; ++i) {
      Case drawn = draw(random, options, static_cast<int>(groups.groups.size()));
      const TestGroup& group = groups.groups[drawn.group];
      const int size = group.communicator->size();
      drawn.peer = drawn.kind == CollectiveKind::shift ? drawn.peer % 7 - 3 : drawn.peer % size;
      drawn.other %= size;
      cases.push_back(drawn);
      // Some ranks' buffers in shared memory, some not: all must take the other way.
      const bool is_shared = shared && (options.buffers == BufferMemory::shared || below(order, 3) > 0);
      jobs.push_back(make_job(drawn, group, options.order, is_shared ? &in_shared : std::pmr::new_delete_resource()));
      jobs.back()->pending = jobs.back()->start();
    }
    finish(jobs, order);
    for (const auto& job : jobs) job->verify();
    check_same_bits(jobs, cases, groups);
  }
}

}  // namespace annulus
