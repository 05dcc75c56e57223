#include "collectives/reduce.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

namespace annulus {
namespace {

/// Buffers of odd lengths at odd places; what lies around the outputs must stay as it was.
TEST(Reduce, PastTheCachesOrNotTheBitsAreTheSame) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  constexpr std::int64_t kLargest = 9000, kRoom = kLargest + 64;
  for (int round = 0; round < 200; ++round) {
    const auto count = static_cast<std::int64_t>(random() % kLargest);
    const std::size_t ranks = 1 + random() % 5;
    std::vector<std::vector<float>> memory(ranks, std::vector<float>(kRoom));
    std::vector<const std::byte*> inputs;
    for (auto& one : memory) {
      for (float& value : one) value = static_cast<float>(random()) * 1e-3f;
      inputs.push_back(reinterpret_cast<const std::byte*>(one.data() + random() % 32));
    }
    std::vector<float> expected(static_cast<std::size_t>(count));
    for (std::int64_t i = 0; i < count; ++i)
      for (std::size_t rank = 0; rank < ranks; ++rank) {
        float value = 0;
        std::memcpy(&value, inputs[rank] + i * 4, 4);
        expected[static_cast<std::size_t>(i)] = rank == 0 ? value : expected[static_cast<std::size_t>(i)] + value;
      }
    for (const Stores stores : {Stores::cached, Stores::streaming}) {
      std::vector<float> one(kRoom, -1.0f), other(kRoom, -1.0f);
      const std::size_t place = random() % 32;
      const std::vector<std::byte*> outputs = {reinterpret_cast<std::byte*>(one.data() + place),
                                               reinterpret_cast<std::byte*>(other.data() + 32)};
      reduce_in_order(inputs, outputs, count, DType::f32, Reduction::sum, stores);
      for (std::size_t i = 0; i < kRoom; ++i) {
        const bool in_one = i >= place && i < place + expected.size(), in_other = i >= 32 && i < 32 + expected.size();
        ASSERT_EQ(one[i], in_one ? expected[i - place] : -1.0f) << i;
        ASSERT_EQ(other[i], in_other ? expected[i - 32] : -1.0f) << i;
      }
    }
    // In place: any one of the inputs.
    std::byte* const target = const_cast<std::byte*>(inputs[random() % ranks]);
    reduce_in_order(inputs, {&target, 1}, count, DType::f32, Reduction::sum);
    EXPECT_EQ(std::memcmp(target, expected.data(), expected.size() * 4), 0);
  }
}

}  // namespace
}  // namespace annulus
