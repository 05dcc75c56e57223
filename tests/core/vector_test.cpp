#include "runtime/core/vector.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <limits>
#include <random>

#include "runtime/core/formulas.h"

namespace annulus {
namespace {

template <class V>
constexpr std::int64_t lanes_of() {
  return static_cast<std::int64_t>(sizeof(V) / sizeof(ElementOf<V>));
}

template <class V>
class VectorTest : public ::testing::Test {
 protected:
  using Number = ElementOf<V>;
  VectorTest() : seed_(std::random_device{}()), engine_(seed_) {}
  ~VectorTest() override {
    if (HasFailure()) std::printf("seed %u\n", seed_);
  }

  V random(Number low, Number high) {
    V value;
    for (std::int64_t i = 0; i < lanes_of<V>(); ++i)
      value[i] = std::uniform_real_distribution<Number>(low, high)(engine_);
    return value;
  }
  /// `of_vector` does to every lane what `of_number` does to a number, but for rounding.
  template <class OfVector, class OfNumber>
  void expect_lanes(Number low, Number high, const OfVector& of_vector, const OfNumber& of_number) {
    for (int round = 0; round < 1000; ++round) {
      const V x = random(low, high), y = of_vector(x);
      for (std::int64_t i = 0; i < lanes_of<V>(); ++i) {
        const Number expected = of_number(Number(x[i]));
        ASSERT_NEAR(y[i], expected,
                    4 * std::numeric_limits<Number>::epsilon() * std::max(Number(1), std::abs(expected)))
            << "of " << x[i];
      }
    }
  }

 private:
  unsigned seed_;
  std::mt19937_64 engine_;
};
/// Of the widest and of other sizes: kernels need all of them on one processor or another.
using VectorTypes = ::testing::Types<Vector<float>, Vector<double>, Vector<float, 16>, Vector<double, 16>>;
TYPED_TEST_SUITE(VectorTest, VectorTypes);

TYPED_TEST(VectorTest, FormulasAreThoseOfNumbers) {
  const auto check = [this](double low, double high, const auto& function) {
    using Element = ElementOf<TypeParam>;
    this->expect_lanes(static_cast<Element>(low), static_cast<Element>(high), function, function);
  };
  check(-90, 20, [](auto x) { return exponential(x); });
  check(-20, 20, [](auto x) { return logistic(x); });
  check(-7, 7, [](auto x) { return error_function(x); });
  check(-7, 7, [](auto x) { return TanhGelu::value(x); });
  check(-7, 7, [](auto x) { return TanhGelu::slope(x); });
  check(-7, 7, [](auto x) { return ErfGelu::value(x); });
  check(-7, 7, [](auto x) { return ErfGelu::slope(x); });
  check(0, 9, [](auto x) { return ValueTraits<decltype(x)>::square_root(x); });
}

TYPED_TEST(VectorTest, EndsOfFormulasInOneVector) {
  using Element = ElementOf<TypeParam>;
  constexpr Element kInfinity = std::numeric_limits<Element>::infinity();
  TypeParam x{};
  x[0] = -kInfinity;
  x[1] = std::numeric_limits<Element>::quiet_NaN();
  EXPECT_EQ(exponential(x)[0], 0);
  EXPECT_TRUE(std::isnan(exponential(x)[1]));
  EXPECT_EQ(error_function(x)[0], -1);
  EXPECT_TRUE(std::isnan(error_function(x)[1]));
  x[1] = kInfinity;
  EXPECT_EQ(exponential(x)[1], kInfinity);
  EXPECT_EQ(error_function(x)[1], 1);
}

TYPED_TEST(VectorTest, SumsAndFirstLanes) {
  const TypeParam x = this->random(1, 2);
  for (std::int64_t count = 0; count <= lanes_of<TypeParam>(); ++count) {
    double sum = 0;
    for (std::int64_t i = 0; i < count; ++i) sum += static_cast<double>(x[i]);
    EXPECT_NEAR(sum_of_lanes(first_lanes(x, count)), sum, 1e-5);
  }
}

template <class T>
void check_loads_and_stores() {
  T memory[3 * kLanes<T>];
  for (std::int64_t i = 0; i < 3 * kLanes<T>; ++i) memory[i] = static_cast<T>(i);
  for (std::int64_t from = 0; from < kLanes<T>; ++from) {
    const Vector<T> all = load(memory + from), some = load_part(memory + from, from);
    T to[2 * kLanes<T>] = {};
    store_part(to, all, from);
    for (std::int64_t i = 0; i < kLanes<T>; ++i) {
      EXPECT_EQ(all[i], static_cast<T>(from + i));
      EXPECT_EQ(some[i], i < from ? static_cast<T>(from + i) : T(0));
      EXPECT_EQ(to[i], some[i]);
    }
    store(to + from, all);
    for (std::int64_t i = 0; i < kLanes<T>; ++i) EXPECT_EQ(to[from + i], static_cast<T>(from + i));
    alignas(kNativeVectorBytes) T streamed[kLanes<T>];
    stream(streamed, all);
    end_streaming();
    EXPECT_EQ(std::memcmp(streamed, memory + from, sizeof streamed), 0);
  }
}

TEST(Vector, LoadsAndStores) {
  check_loads_and_stores<float>();
  check_loads_and_stores<double>();
}

TEST(Vector, ProductsOfLowHalves) {
  std::mt19937_64 engine(std::random_device{}());
  for (int round = 0; round < 100; ++round) {
    Vector<std::uint64_t> a, b;
    for (std::int64_t i = 0; i < kLanes<std::uint64_t>; ++i) a[i] = engine(), b[i] = engine();
    const auto products = low_product(a, b);
    for (std::int64_t i = 0; i < kLanes<std::uint64_t>; ++i)
      EXPECT_EQ(products[i], (a[i] & 0xFFFFFFFF) * (b[i] & 0xFFFFFFFF));
  }
}

}  // namespace
}  // namespace annulus
