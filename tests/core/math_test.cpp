#include "runtime/core/math.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>

namespace annulus {
namespace {

/// Largest error of `function` against `exact`, in units of T's precision of the exact value, on random points.
template <class T>
double worst_error(T low, T high, T (*function)(T), long double (*exact)(long double)) {
  std::mt19937_64 engine(std::random_device{}());
  std::uniform_real_distribution<T> points(low, high);
  long double worst = 0;
  for (int i = 0; i < 200000; ++i) {
    const T x = points(engine);
    const long double value = exact(static_cast<long double>(x));
    worst = std::max(worst, std::abs((static_cast<long double>(function(x)) - value) / value));
  }
  return static_cast<double>(worst / static_cast<long double>(std::numeric_limits<T>::epsilon()));
}

TEST(Math, ExponentialIsWithinAFewUnits) {
  EXPECT_LT(worst_error<float>(-86.4f, 88.7f, exponential, std::exp), 2);
  EXPECT_LT(worst_error<float>(-1, 1, exponential, std::exp), 2);
  EXPECT_LT(worst_error<double>(-706.9, 709.7, exponential, std::exp), 2);
  EXPECT_LT(worst_error<double>(-1, 1, exponential, std::exp), 2);
}

template <class T>
void check_ends_of_exponential() {
  const T infinity = std::numeric_limits<T>::infinity();
  EXPECT_EQ(exponential(-infinity), 0);
  EXPECT_EQ(exponential(T(-1e30)), 0);
  EXPECT_EQ(exponential(infinity), infinity);
  EXPECT_EQ(exponential(T(1e30)), infinity);
  EXPECT_EQ(exponential(T(0)), 1);
  EXPECT_TRUE(std::isnan(exponential(std::numeric_limits<T>::quiet_NaN())));
}

TEST(Math, ExponentialAtItsEnds) {
  check_ends_of_exponential<float>();
  check_ends_of_exponential<double>();
}

template <class T>
void check_power_of_two(T lowest) {
  const auto exact = [](long double x) { return std::exp2(x); };
  EXPECT_LT(worst_error<T>(lowest, 100, power_of_two, exact), 2);
  EXPECT_LT(worst_error<T>(-1, 1, power_of_two, exact), 2);
  for (int n = -20; n <= 20; ++n) EXPECT_EQ(power_of_two(static_cast<T>(n)), std::ldexp(T(1), n));
  EXPECT_EQ(power_of_two(-std::numeric_limits<T>::infinity()), 0);
  EXPECT_EQ(power_of_two(lowest - 2), 0);
  EXPECT_TRUE(std::isnan(power_of_two(std::numeric_limits<T>::quiet_NaN())));
}

TEST(Math, PowerOfTwoIsWithinAFewUnits) {
  check_power_of_two<float>(-125.9f);
  check_power_of_two<double>(-1021.9);
}

TEST(Math, LogisticIsWithinAFewUnits) {
  const auto exact = [](long double x) { return 1 / (1 + std::exp(-x)); };
  EXPECT_LT(worst_error<float>(-80, 80, logistic, exact), 4);
  EXPECT_LT(worst_error<double>(-80, 80, logistic, exact), 4);
  EXPECT_EQ(logistic(-1e4f), 0);
  EXPECT_EQ(logistic(1e4f), 1);
}

TEST(Math, ErrorFunctionIsWithinAFewUnits) {
  EXPECT_LT(worst_error<float>(-1.5f, 1.5f, error_function, std::erf), 2);
  EXPECT_LT(worst_error<float>(-10, 10, error_function, std::erf), 2);
  EXPECT_LT(worst_error<double>(-10, 10, error_function, std::erf), 2);
  EXPECT_EQ(error_function(0.0f), 0);
}

}  // namespace
}  // namespace annulus
