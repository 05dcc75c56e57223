#include "collectives/shared_window.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <random>
#include <thread>
#include <vector>

namespace annulus {
namespace {

/// Whose buffers lie in memory that the others reach.
enum class Sharing { nobody, everybody, some };

/// Ranks that are threads and share one mapping: what ThreadSanitizer can see of the protocol. (The suite over MPI runs
/// every collective through windows, between processes.)
class WindowOfThreads : public testing::TestWithParam<std::tuple<int, Sharing>> {};

TEST_P(WindowOfThreads, ReductionsFollowEachOther) {
  const auto [ranks, sharing] = GetParam();
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  constexpr std::int64_t kLargest = 40000;
  const std::int64_t region = kLargest * (2 + ranks);  // elements: two results, and what is scattered
  std::vector<std::vector<float>> memory(ranks, std::vector<float>(region));
  std::vector<std::byte*> bases;
  for (auto& one : memory) bases.push_back(reinterpret_cast<std::byte*>(one.data()));

  const std::shared_ptr<SharedSegment> segment = SharedSegment::create(SharedWindow::total_bytes(ranks, 4096));
  ASSERT_TRUE(segment);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      GroupMemory group{std::make_shared<PeerMemory>(), {}};
      for (int member = 0; member < ranks; ++member) group.members.push_back(member);
      if (sharing != Sharing::nobody)
        std::const_pointer_cast<PeerMemory>(group.memory)
            ->add(bases[rank], sharing == Sharing::some && rank == 0 ? 4 : region * 4, bases);
      WindowQueue queue(std::make_unique<SharedWindow>(segment, ranks, 4096), std::move(group), rank);
      const auto progress = std::make_shared<ProgressEngine>();
      std::mt19937 random(seed);
      float *first = memory[rank].data(), *part = first + kLargest, *second = part + kLargest;
      for (int round = 0; round < 30; ++round) {
        const auto count = static_cast<std::int64_t>(random() % kLargest);
        for (std::int64_t i = 0; i < count; ++i) first[i] = static_cast<float>(rank + i % 100);
        for (std::int64_t i = 0; i < count * ranks; ++i) second[i] = static_cast<float>(rank * (i % 50));
        auto reduced =
            ProgressEngine::start(progress, queue.start({CollectiveKind::all_reduce, first, first, count, DType::f32}));
        auto scattered = ProgressEngine::start(
            progress, queue.start({CollectiveKind::reduce_scatter, second, part, count, DType::f32}));
        while (!scattered->test() || !reduced->test()) std::this_thread::yield();
        const bool direct = sharing == Sharing::everybody && count * 4 > 4096;
        ASSERT_EQ(scattered->transport(), direct ? Transport::direct : Transport::slots);
        const float all = static_cast<float>(ranks * (ranks - 1) / 2);
        for (std::int64_t i = 0; i < count; ++i) {
          ASSERT_EQ(first[i], all + static_cast<float>(ranks * (i % 100))) << "round " << round;
          ASSERT_EQ(part[i], all * static_cast<float>((i + rank * count) % 50)) << "round " << round;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

INSTANTIATE_TEST_SUITE_P(, WindowOfThreads,
                         testing::Combine(testing::Values(1, 2, 3, 5),
                                          testing::Values(Sharing::nobody, Sharing::everybody, Sharing::some)));

TEST(SharedSegment, IsRefusedWhereThereIsNoRoom) { EXPECT_FALSE(SharedSegment::create(std::int64_t{1} << 46)); }

TEST(SharedSegment, OpensInAnotherProcessUntilWithdrawn) {
  const auto segment = SharedSegment::create(3 << 20);
  ASSERT_TRUE(segment);
  const auto in_another_process = [&](auto body) {
    const pid_t child = fork();
    if (child == 0) _exit(body() ? 0 : 1);
    int status = 0;
    waitpid(child, &status, 0);
    return status == 0;
  };
  constexpr std::int64_t kPlace = (2 << 20) + 5;
  EXPECT_TRUE(in_another_process([&] {
    const auto other = SharedSegment::open(segment->name());
    if (!other || other->data()[kPlace] != std::byte{0}) return false;
    other->data()[kPlace] = std::byte{9};
    return true;
  }));
  EXPECT_EQ(segment->data()[kPlace], std::byte{9});
  SegmentName wrong = segment->name();
  ++wrong.nonce;
  EXPECT_FALSE(SharedSegment::open(wrong)) << "another file under the same number";
  wrong = segment->name();
  ++wrong.host;
  EXPECT_FALSE(SharedSegment::open(wrong)) << "another host";
  segment->withdraw();
  EXPECT_TRUE(in_another_process([&] { return SharedSegment::open(segment->name()) == nullptr; }));
}

}  // namespace
}  // namespace annulus
