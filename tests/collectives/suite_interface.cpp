#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "runtime/core/error.h"
#include "tests/collectives/suite.h"

namespace annulus {
namespace {

void require(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error(what);
}

template <class Call>
void require_refused(Call call, const std::string& part) {
  try {
    wait(call());
  } catch (const CollectiveError& error) {
    require(std::string(error.what()).find(part) != std::string::npos, fmt::format("said '{}'", error.what()));
    return;
  }
  throw std::runtime_error("accepted what must be refused: " + part);
}

/// World ranks of the members of a group, in its order.
std::vector<std::int32_t> members_of(Communicator& group, int world_rank) {
  const std::int32_t own = world_rank;
  std::vector<std::int32_t> members(group.size());
  wait(group.all_gather(&own, members.data(), 1, DType::i32));
  return members;
}

}  // namespace

void check_splits(Communicator& world) {
  const int rank = world.rank();
  const int size = world.size();
  const auto expect = [&](const std::vector<std::int32_t>& members, const std::vector<std::int32_t>& expected,
                          const char* what) {
    require(members == expected, fmt::format("split {} on rank {}: wrong members", what, rank));
  };
  std::vector<std::int32_t> reversed;
  std::vector<std::int32_t> third;
  for (int other = 0; other < size; ++other) {
    reversed.insert(reversed.begin(), other);
    if (other % 3 == rank % 3) third.push_back(other);
  }
  const auto backwards = world.split(std::numeric_limits<int>::max(), -rank);
  expect(members_of(*backwards, rank), reversed, "by falling keys");
  const auto thirds = world.split(rank % 3 - 1, 7);
  expect(members_of(*thirds, rank), third, "by equal keys");
  const auto extreme =
      world.split(std::numeric_limits<int>::min(), rank == 0 ? std::numeric_limits<int>::max() : rank - size);
  std::vector<std::int32_t> rotated(reversed.rbegin(), reversed.rend());
  std::rotate(rotated.begin(), rotated.begin() + 1, rotated.end());
  expect(members_of(*extreme, rank), rotated, "by extreme keys");
  const auto nested = backwards->split(backwards->rank() % 2, backwards->rank());
  std::vector<std::int32_t> every_second;
  for (int place = backwards->rank() % 2; place < size; place += 2) every_second.push_back(reversed[place]);
  expect(members_of(*nested, rank), every_second, "of a split");
  require(nested->rank() == backwards->rank() / 2, "rank in a split of a split");
  require(world.split(rank, 0)->size() == 1, "every rank alone");
}

void check_counters(Communicator& world) {
  const auto group = world.split(0, world.rank());
  require(group->counters().calls == 0 && group->counters().payload_bytes == 0, "counters do not begin at zero");
  const std::int64_t size = group->size();
  std::vector<double> all(size * 5, 1.0);
  std::vector<double> more(size * 5);
  std::int64_t calls = 0;
  std::int64_t bytes = 0;
  const auto expect = [&](Communicator::Pending pending, std::int64_t payload) {
    wait(std::move(pending));
    bytes += payload;
    require(group->counters().calls == ++calls,
            fmt::format("{} calls counted after {}", group->counters().calls, calls));
    require(group->counters().payload_bytes == bytes,
            fmt::format("{} bytes counted, must be {}, call {}", group->counters().payload_bytes, bytes, calls));
  };
  expect(group->all_reduce(all.data(), more.data(), 5, DType::f64, Reduction::sum), 40);
  expect(group->all_gather(all.data(), more.data(), 5, DType::f32), 20 * size);
  expect(group->reduce_scatter(all.data(), more.data(), 5, DType::f64, Reduction::max), 40 * size);
  expect(group->all_to_all(all.data(), more.data(), 5, DType::f64), 40 * size);
  expect(group->broadcast(all.data(), 5, DType::i32, 0), 20);
  expect(group->gather(all.data(), more.data(), 5, DType::f64, 0), 40 * size);
  expect(group->scatter(all.data(), more.data(), 5, DType::f64, 0), 40 * size);
  expect(group->reduce(all.data(), more.data(), 5, DType::f64, Reduction::sum, 0), 40);
  expect(group->shift(all.data(), more.data(), 5, DType::f64, 1), 40);
  if (size > 1 && group->rank() == 0) expect(group->send(all.data(), 5, DType::f64, 1), 40);
  if (size > 1 && group->rank() == 1) expect(group->recv(all.data(), 5, DType::f64, 0), 40);
  require(world.split(0, 0)->counters().calls == 0, "a split counts its parent's calls");
}

void check_refusals(Communicator& world) {
  const int size = world.size();
  std::vector<float> values(3 * size + 3);
  float* data = values.data();
  require_refused([&] { return world.all_reduce(data, data + 40000, -1, DType::f32, Reduction::sum); }, "negative");
  require_refused([&] { return world.broadcast(data, 1, DType::f32, size); }, fmt::format("0 to {}", size - 1));
  require_refused([&] { return world.send(data, 1, DType::f32, -1); }, "to -1");
  require_refused([&] { return world.all_gather(nullptr, data, 1, DType::f32); }, "missing");
  require_refused([&] { return world.all_reduce(data, data + 1, 2, DType::f32, Reduction::sum); }, "overlap");
  require_refused([&] { return world.shift(data, data, 2, DType::f32, 1); }, "overlap");
  std::array<double, 2> inputs = {world.rank() == 0 ? std::nan("") : 1.0, 2.0};
  wait(world.all_reduce(inputs.data(), inputs.data(), 2, DType::f64, Reduction::max));
  require(std::isnan(inputs[0]) && inputs[1] == 2.0, "a maximum hides NaN");
}

}  // namespace annulus
