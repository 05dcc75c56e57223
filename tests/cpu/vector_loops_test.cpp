#include "runtime/cpu/vector_loops.h"

#include <algorithm>

#include "tests/cpu/support.h"

namespace annulus::testing {
namespace {

template <class T>
class VectorLoopsTest : public FloatKernelTest<T> {};
TYPED_TEST_SUITE(VectorLoopsTest, FloatTypes);

/// Every beginning behind a multiple of the vectors' size, counts below and above one vector, and nothing beyond them.
TYPED_TEST(VectorLoopsTest, TransformsAnywhere) {
  using T = TypeParam;
  constexpr std::int64_t kRoom = 5 * kLanes<T>;
  const Numbers a = this->random(this->kType, {kRoom}).numbers(), b = this->random(this->kType, {kRoom}).numbers();
  const std::vector<T> left(a.begin(), a.end()), right(b.begin(), b.end());
  for (Stores stores : {Stores::cached, Stores::streamed}) {
    for (std::int64_t begin = 0; begin < kLanes<T>; ++begin) {
      for (std::int64_t count = 0; begin + count <= kRoom; ++count) {
        alignas(kNativeVectorBytes) T to[kRoom];
        std::fill(to, to + kRoom, T(-77));
        transform(
            stores, to + begin, count, [](Vector<T> x, Vector<T> y) { return x * y; }, left.data(), right.data());
        for (std::int64_t i = 0; i < kRoom; ++i) {
          const std::int64_t from = i - begin;
          const bool written = from >= 0 && from < count;
          const auto at = static_cast<std::size_t>(written ? from : 0);
          ASSERT_EQ(to[i], written ? left[at] * right[at] : T(-77)) << begin << " " << count << " " << i;
        }
      }
    }
  }
}

TYPED_TEST(VectorLoopsTest, SumsAnyCount) {
  using T = TypeParam;
  const std::int64_t most = 9 * kLanes<T>;
  const Numbers numbers = this->random(this->kType, {most}).numbers();
  const std::vector<T> x(numbers.begin(), numbers.end());
  double expected = 0;
  for (std::int64_t count = 0; count <= most; ++count) {
    const T sum = sum_over(
        count, [](Vector<T> at) { return at * at + T(1); }, x.data());
    EXPECT_NEAR(sum, expected, this->tolerance(5) * (1 + expected));
    if (count < most) expected += std::pow(numbers[static_cast<std::size_t>(count)], 2) + 1;
  }
}

TEST(VectorLoops, OnlyLargeResultsAreStreamed) {
  EXPECT_EQ(stores_for(1 << 20), Stores::cached);
  EXPECT_EQ(stores_for(std::int64_t{1} << 30), Stores::streamed);
}

}  // namespace
}  // namespace annulus::testing
