#include "runtime/core/half.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

#include "runtime/core/dtype.h"
#include "runtime/core/half_vector.h"

namespace annulus {
namespace {

constexpr std::uint32_t kPatterns = 65536;

/// Bits of exponent and fraction, as the formats' definitions have them.
template <class Half>
struct Description;
template <>
struct Description<BFloat16> {
  static constexpr int kExponent = 8, kFraction = 7;
};
template <>
struct Description<Float16> {
  static constexpr int kExponent = 5, kFraction = 10;
};

/// The value that the definition gives to a pattern of bits.
template <class Half>
double defined(std::uint32_t bits) {
  using D = Description<Half>;
  constexpr int kBias = (1 << (D::kExponent - 1)) - 1, kTop = (1 << D::kExponent) - 1;
  const double sign = (bits >> 15) != 0 ? -1 : 1;
  const int exponent = static_cast<int>(bits >> D::kFraction) & kTop;
  const double fraction = std::ldexp(static_cast<double>(bits & ((1u << D::kFraction) - 1)), -D::kFraction);
  if (exponent == kTop) return fraction == 0 ? sign * INFINITY : NAN;
  if (exponent == 0) return sign * std::ldexp(fraction, 1 - kBias);
  return sign * std::ldexp(1 + fraction, exponent - kBias);
}

template <class Half>
class HalfTest : public ::testing::Test {
 protected:
  HalfTest() : seed_(std::random_device{}()), engine_(seed_) { RecordProperty("seed", static_cast<int>(seed_)); }

  /// The half nearest to x by search among all of them, the even one of two.
  std::uint16_t nearest(float x) {
    if (magnitudes_.empty())
      for (std::uint32_t bits = 0; !std::isinf(defined<Half>(bits)); ++bits) magnitudes_.push_back(defined<Half>(bits));
    const auto sign = static_cast<std::uint16_t>(std::signbit(x) ? 0x8000 : 0);
    const double magnitude = std::abs(static_cast<double>(x)), top = magnitudes_.back();
    const double beyond = top + (top - magnitudes_[magnitudes_.size() - 2]);
    if (magnitude >= beyond) return static_cast<std::uint16_t>(sign | magnitudes_.size());
    const auto above = std::upper_bound(magnitudes_.begin(), magnitudes_.end(), magnitude);
    const auto low = static_cast<std::size_t>(above - magnitudes_.begin() - 1);
    const double next = above == magnitudes_.end() ? beyond : *above, middle = (magnitudes_[low] + next) / 2;
    const bool up = magnitude > middle || (magnitude == middle && low % 2 == 1);
    return static_cast<std::uint16_t>(sign | (low + (up ? 1 : 0)));
  }

  float random_float() {
    if (engine_() % 2 == 0) return std::bit_cast<float>(static_cast<std::uint32_t>(engine_()));
    // near the middle of two halves, where rounding is decided
    const auto bits = static_cast<std::uint16_t>(engine_());
    const float low = Half::from_bits(bits);
    const float high = Half::from_bits(static_cast<std::uint16_t>(bits + 1));
    const float middle = low + (high - low) / 2;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(middle) + static_cast<std::uint32_t>(engine_() % 3) - 1);
  }

  std::uint32_t seed_;
  std::mt19937_64 engine_;
  std::vector<double> magnitudes_;
};

using Halves = ::testing::Types<BFloat16, Float16>;
TYPED_TEST_SUITE(HalfTest, Halves);

TYPED_TEST(HalfTest, AllValuesAreTheDefinedOnesAndComeBack) {
  static_assert(std::is_trivial_v<TypeParam>);
  for (std::uint32_t bits = 0; bits < kPatterns; ++bits) {
    const TypeParam half = TypeParam::from_bits(static_cast<std::uint16_t>(bits));
    const float value = half;
    const double expected = defined<TypeParam>(bits);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(value)) << bits;
      ASSERT_TRUE(std::isnan(static_cast<float>(TypeParam(value)))) << bits;
      continue;
    }
    ASSERT_EQ(value, expected) << bits;
    ASSERT_EQ(std::signbit(value), bits >= 0x8000) << bits;
    ASSERT_EQ(TypeParam(value).bits, bits);
  }
}

TYPED_TEST(HalfTest, RoundsToTheNearestAndThenToEven) {
  for (int round = 0; round < 300000; ++round) {
    const float x = this->random_float();
    if (std::isnan(x))
      ASSERT_TRUE(std::isnan(static_cast<float>(TypeParam(x)))) << "seed " << this->seed_;
    else
      ASSERT_EQ(TypeParam(x).bits, this->nearest(x)) << x << ", seed " << this->seed_;
  }
  for (const float x :
       {0.0f, -0.0f, INFINITY, -INFINITY, std::numeric_limits<float>::max(), std::numeric_limits<float>::denorm_min()})
    EXPECT_EQ(TypeParam(x).bits, this->nearest(x)) << x;
}

TYPED_TEST(HalfTest, ManyAtOnceAreAsOneByOne) {
  for (int round = 0; round < 2000; ++round) {
    const auto count = static_cast<std::size_t>(this->engine_() % 200);
    std::vector<float> wide(count), back(count + 1, -7.0f);
    for (float& x : wide) x = this->random_float();
    std::vector<TypeParam> halves(count + 1, TypeParam(-7.0f));
    narrow(wide.data(), halves.data(), static_cast<std::int64_t>(count));
    widen(halves.data(), back.data(), static_cast<std::int64_t>(count));
    for (std::size_t i = 0; i < count; ++i) {
      ASSERT_EQ(halves[i].bits, TypeParam(wide[i]).bits) << wide[i] << ", seed " << this->seed_;
      ASSERT_EQ(std::bit_cast<std::uint32_t>(back[i]), std::bit_cast<std::uint32_t>(static_cast<float>(halves[i])));
    }
    ASSERT_EQ(static_cast<float>(halves[count]), -7.0f);
    ASSERT_EQ(back[count], -7.0f);
  }
}

TEST(HalfTypes, AreNamedAndWide) {
  EXPECT_EQ(dtype_of<BFloat16>(), DType::bf16);
  EXPECT_EQ(dtype_of<Float16>(), DType::f16);
  for (const DType dtype : {DType::bf16, DType::f16}) {
    EXPECT_TRUE(is_float(dtype) && is_half(dtype));
    EXPECT_EQ(size_of(dtype), 2);
    EXPECT_EQ(wide(dtype), DType::f32);
  }
  EXPECT_EQ(wide(DType::f32), DType::f32);
  EXPECT_EQ(wide(DType::f64), DType::f64);
  EXPECT_FALSE(is_half(DType::f32) || is_float(DType::i32));
}

}  // namespace
}  // namespace annulus
