#include "collectives/shared_window.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <thread>
#include <vector>

namespace annulus {
namespace {

/// Ranks that are threads and share one mapping: what ThreadSanitizer can see of the protocol. (The suite over MPI runs
/// every collective through windows, between processes.)
TEST(SharedWindow, ReductionsFollowEachOtherThroughFewSlots) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  for (const int ranks : {1, 2, 3, 5}) {
    std::string name;
    const std::shared_ptr<SharedWindow> window = SharedWindow::create(ranks, 4096, name);
    ASSERT_TRUE(window);
    SharedWindow::unlink(name);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < ranks; ++rank) {
      threads.emplace_back([&, rank] {
        const auto progress = std::make_shared<ProgressEngine>();
        WindowQueue queue(window, rank);
        std::mt19937 random(seed);
        for (int round = 0; round < 30; ++round) {
          const auto count = static_cast<std::int64_t>(random() % 12000);
          std::vector<float> first(count), second(count * ranks), part(count);
          for (std::int64_t i = 0; i < count; ++i) first[i] = static_cast<float>(rank + i % 100);
          for (std::int64_t i = 0; i < count * ranks; ++i) second[i] = static_cast<float>(rank * (i % 50));
          auto reduced = ProgressEngine::start(
              progress, queue.start({CollectiveKind::all_reduce, first.data(), first.data(), count, DType::f32}));
          wait(ProgressEngine::start(
              progress, queue.start({CollectiveKind::reduce_scatter, second.data(), part.data(), count, DType::f32})));
          wait(std::move(reduced));
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
}

TEST(SharedWindow, IsRefusedWhereThereIsNoRoom) {
  std::string name;
  EXPECT_FALSE(SharedWindow::create(2, std::int64_t{1} << 46, name));
  EXPECT_FALSE(SharedWindow::open(name, 2, 4096)) << "a window that failed has left its name";
}

TEST(SharedWindow, OpensByNameUntilUnlinked) {
  std::string name;
  const auto window = SharedWindow::create(2, 4096, name);
  ASSERT_TRUE(window);
  const auto other = SharedWindow::open(name, 2, 4096);
  ASSERT_TRUE(other);
  window->filled(1) = 17;
  window->slot(1, 3)[5] = std::byte{9};
  EXPECT_EQ(other->filled(1), 17U);
  EXPECT_EQ(other->slot(1, 1)[5], std::byte{9});
  SharedWindow::unlink(name);
  EXPECT_FALSE(SharedWindow::open(name, 2, 4096));
}

}  // namespace
}  // namespace annulus
