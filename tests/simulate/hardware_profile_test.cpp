#include "runtime/simulate/hardware_profile.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "runtime/core/error.h"
#include "runtime/simulate/collective_cost.h"

namespace annulus {
namespace {

HardwareProfile example() {
  HardwareProfile profile;
  profile.name = "test machine";
  profile.host = "here";
  profile.device = "a processor, 2 threads";
  profile.peak_name = "SGEMM ceiling of this CPU, 2 threads";
  profile.peak_flops_per_second = 3e11;
  profile.products[DType::f32] = RateCurve({{1e6, 5e10}, {1e9, 2e11}, {1e10, 3e11}});
  profile.products[DType::f64] = RateCurve({{1e6, 1e10}});
  profile.attention_forward[DType::f32] = RateCurve({{10, 1e11}, {100, 2e11}});
  profile.attention_backward[DType::f32] = RateCurve({{1e6, 8e10}});
  profile.attention_forward_pair_seconds = 1e-10;
  profile.attention_backward_pair_seconds = 2e-10;
  profile.memory = RateCurve({{1e5, 1e11}, {1e8, 3e10}});
  profile.kernels["gelu"] = RateCurve({{1e6, 1e10}});
  profile.op_overhead_seconds = 2e-6;
  profile.product_bandwidth = 4e10;
  profile.after_bytes = RateCurve({{1e6, 1e11}, {1e9, 3e10}});
  profile.after_seconds = RateCurve({{1e-3, 1e11}});
  profile.far_seconds_per_byte = {{"add", 1e-11}, {"adamw", 2e-11}, {"gelu", 0}};
  profile.overlap = {{1e-4, 5e-4, 2e-5}, {1e-2, 3e-2, 8e-3}};
  profile.collectives[{CollectiveKind::all_reduce, 2}] = TransferCurve({{8, 1e-6}, {1024, 2e-6}, {1 << 20, 1e-4}});
  profile.collectives[{CollectiveKind::shift, 2}] = TransferCurve({{8, 1e-6}, {1 << 20, 5e-5}});
  return profile;
}

TEST(HardwareProfile, RatesInterpolateInLogarithms) {
  const HardwareProfile profile = example();
  EXPECT_DOUBLE_EQ(profile.products.at(DType::f32).rate(1), 5e10);
  EXPECT_DOUBLE_EQ(profile.products.at(DType::f32).rate(1e12), 3e11);
  EXPECT_NEAR(profile.products.at(DType::f32).rate(std::sqrt(1e15)), 1e11, 1);  // geometric middle of 5e10 and 2e11
  EXPECT_NEAR(profile.product_seconds(DType::f32, 1e9, 0), 1e9 / 2e11, 1e-15);
  EXPECT_NEAR(profile.product_seconds(DType::f32, 1e9, 1e8), 1e9 / 2e11 + 1e8 / 4e10, 1e-15);
  EXPECT_EQ(profile.product_seconds(DType::f32, 0, 0), 0);
  EXPECT_DOUBLE_EQ(profile.product_seconds(DType::f64, 1e9, 0), 0.1);
  // The rate hangs on the keys alone, and a type that was not measured takes f32's by its bytes.
  EXPECT_DOUBLE_EQ(profile.attention_forward_seconds(DType::f32, 1e7, 1e6, 100), 1e7 / 2e11 + 1e6 * 1e-10);
  EXPECT_DOUBLE_EQ(profile.attention_forward_seconds(DType::f32, 1e9, 0, 10), 1e9 / 1e11);
  EXPECT_DOUBLE_EQ(profile.attention_forward_seconds(DType::f64, 1e9, 0, 10), 2 * 0.01);
  EXPECT_DOUBLE_EQ(profile.pass_seconds("gelu", 1e6), 1e-4);
  EXPECT_DOUBLE_EQ(profile.pass_seconds("add", 1e8), 1e8 / 3e10);
  // Operands from memory: by kind, and a kind that was not measured takes what an addition takes.
  EXPECT_DOUBLE_EQ(profile.far_seconds("adamw", 1e6), 2e-5);
  EXPECT_DOUBLE_EQ(profile.far_seconds("gelu", 1e6), 0);
  EXPECT_DOUBLE_EQ(profile.far_seconds("nll", 1e6), 1e-5);
  EXPECT_DOUBLE_EQ(HardwareProfile().far_seconds("nll", 1e6), 0);
}

TEST(HardwareProfile, OverlapIsADelayAndARatio) {
  HardwareProfile profile = example();
  const auto expect = [&](double alone, double beside, double lost) {
    const OverlapCost cost = profile.overlap_cost(alone);
    EXPECT_DOUBLE_EQ(cost.alone_seconds, alone);
    EXPECT_NEAR(cost.beside_seconds / beside, 1, 1e-9) << alone;
    EXPECT_NEAR(cost.lost_seconds, lost, 1e-9 * alone) << alone;
  };
  expect(1e-4, 5e-4, 2e-5);
  expect(1e-6, 4.01e-4, 2e-7);                            // shorter than measured: the same delay
  expect(5.05e-3, (5e-4 + 3e-2) / 2, (2e-5 + 8e-3) / 2);  // in the middle
  expect(1, 3, 0.8);
  profile.overlap.clear();
  expect(1e-3, 1e-3, 0);
}

TEST(HardwareProfile, CollectivesInPlaceAreTheirOwn) {
  HardwareProfile profile = example();
  const auto kind = CollectiveKind::all_gather;
  profile.collectives[{kind, 2}] = TransferCurve({{100, 2e-6}, {10000, 4e-6}});
  EXPECT_DOUBLE_EQ(profile.collective_seconds(kind, 2, 100, 1, Operands::in_place), 2e-6) << "the nearest";
  profile.collectives[{kind, 2, 1, Transport::direct, Operands::in_place}] =
      TransferCurve({{100, 1e-6}, {10000, 2e-6}});
  EXPECT_DOUBLE_EQ(profile.collective_seconds(kind, 2, 100, 1, Operands::in_place), 1e-6);
  EXPECT_DOUBLE_EQ(profile.collective_seconds(kind, 2, 100), 2e-6);
}

TEST(HardwareProfile, TransfersInterpolateByAlphaAndBeta) {
  const TransferCurve curve({{8, 1e-6}, {1024, 2e-6}, {2048, 4e-6}});
  EXPECT_DOUBLE_EQ(curve.seconds(1), 1e-6);
  EXPECT_DOUBLE_EQ(curve.seconds(1024), 2e-6);
  EXPECT_DOUBLE_EQ(curve.seconds(1536), 3e-6);
  EXPECT_DOUBLE_EQ(curve.seconds(2048 + 2040), 4e-6 + 3e-6);  // beyond: 3e-6 s per 2040 bytes
}

TEST(HardwareProfile, MeasuredAlphaBetaLinkIsReproducedForWhatWasNotMeasured) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> exponent(-6, -5), log_bytes(3, 8);
  for (int repeat = 0; repeat < 50; ++repeat) {
    const Link link{std::pow(10, exponent(random)), 1e10};
    HardwareProfile profile;
    TransferCurve::Points points;
    for (const double bytes : {1e-3, 1e3, 1e6, 1e9}) {
      points.emplace_back(bytes, ring_seconds(CollectiveKind::all_reduce, 4, bytes, link));
    }
    profile.collectives[{CollectiveKind::all_reduce, 4}] = TransferCurve(points);
    const double bytes = std::pow(10, log_bytes(random));
    for (const CollectiveKind kind : {CollectiveKind::all_gather, CollectiveKind::all_reduce,
                                      CollectiveKind::reduce_scatter, CollectiveKind::shift}) {
      for (const int size : {2, 3, 4, 8}) {
        const double expected = ring_seconds(kind, size, bytes, link);
        EXPECT_NEAR(profile.collective_seconds(kind, size, bytes), expected, 1e-6 * expected)
            << name_of(kind) << " over " << size << ", " << bytes << " bytes";
      }
    }
  }
}

TEST(HardwareProfile, CollectivesAskedFor) {
  HardwareProfile profile = example();
  EXPECT_EQ(profile.collective_seconds(CollectiveKind::all_reduce, 1, 1e9), 0);
  EXPECT_DOUBLE_EQ(profile.collective_seconds(CollectiveKind::all_reduce, 2, 1024), 2e-6);
  // The same kind of another size comes before another kind of the same size.
  profile.collectives[{CollectiveKind::all_gather, 4}] = TransferCurve({{8, 1}, {1024, 2}});
  EXPECT_GT(profile.collective_seconds(CollectiveKind::all_reduce, 4, 8), 1e-6);
  EXPECT_LT(profile.collective_seconds(CollectiveKind::all_reduce, 4, 8), 1e-3);
  EXPECT_GT(profile.collective_seconds(CollectiveKind::all_gather, 2, 8), 0.1);
  profile.collectives.clear();
  EXPECT_THROW((void)profile.collective_seconds(CollectiveKind::all_reduce, 2, 8), ConfigError);
}

TEST(HardwareProfile, TheFasterTransportIsChosen) {
  HardwareProfile profile = example();
  const auto kind = CollectiveKind::all_gather;
  EXPECT_EQ(profile.transport_between_hosts(kind, 4, 2, 100), Transport::hierarchical) << "nothing measured";
  profile.collectives[{kind, 4, 2, Transport::messages}] = TransferCurve({{100, 1e-6}, {10000, 5e-6}});
  EXPECT_EQ(profile.transport_between_hosts(kind, 4, 2, 100), Transport::hierarchical) << "one measured";
  profile.collectives[{kind, 4, 2, Transport::hierarchical}] = TransferCurve({{100, 2e-6}, {10000, 3e-6}});
  EXPECT_EQ(profile.transport_between_hosts(kind, 4, 2, 100), Transport::messages);
  EXPECT_EQ(profile.transport_between_hosts(kind, 4, 2, 10000), Transport::hierarchical);
  EXPECT_DOUBLE_EQ(profile.collective_seconds(kind, 4, 100, 2), 1e-6);
  EXPECT_DOUBLE_EQ(profile.collective_seconds(kind, 4, 10000, 2), 3e-6);
  EXPECT_DOUBLE_EQ(profile.collective_seconds(kind, 4, 10000, 3), 3e-6) << "several hosts are nearest to several";
}

TEST(HardwareProfile, JsonRoundTrip) {
  const HardwareProfile profile = example();
  EXPECT_EQ(parse_hardware_profile(to_json(profile), "text"), profile);
  const std::string path =
      ::testing::TempDir() + "annulus_hardware_profile_test_" + std::to_string(std::random_device{}()) + ".json";
  save_hardware_profile(profile, path);
  EXPECT_EQ(load_hardware_profile(path), profile);
  std::filesystem::remove(path);
  EXPECT_THROW((void)load_hardware_profile(path), ConfigError);
  EXPECT_THROW((void)load_hardware_profile(::testing::TempDir()), ConfigError);
  EXPECT_THROW(save_hardware_profile(profile, "/no such folder/profile.json"), ConfigError);
}

std::vector<std::string> problems_of(const std::string& text) {
  try {
    (void)parse_hardware_profile(text, "p.json");
  } catch (const ConfigError& error) {
    return error.problems();
  }
  return {};
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const auto at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(HardwareProfile, BadInputIsNamed) {
  const std::string good = to_json(example());
  EXPECT_TRUE(problems_of(good).empty());
  EXPECT_EQ(problems_of("{").size(), 1u);
  EXPECT_EQ(problems_of("[]").at(0), "p.json is no hardware profile: its JSON is no object");
  EXPECT_GE(problems_of("{\"version\": 4}").size(), 15u);  // all that is missing, at once
  EXPECT_EQ(problems_of(replaced(good, "\"version\": 4", "\"version\": 7")).at(0),
            "p.json: version 7 cannot be read, only 4; run annulus calibrate again");
  EXPECT_EQ(problems_of(replaced(good, "\"host\"", "\"hots\"")),
            (std::vector<std::string>{"p.json: hots is no field of a profile", "p.json: host is missing"}));
  EXPECT_EQ(problems_of(replaced(good, "\"beside_seconds\": 0.0005", "\"beside_seconds\": 0.00005")).at(0),
            "p.json: overlap[0].beside_seconds is 5e-05; use a number from 0.0001 to 1000000");
  EXPECT_EQ(problems_of(replaced(good, "\"alone_seconds\": 0.01", "\"alone_seconds\": 0.0001")).size(), 1u)
      << "they ascend";
  EXPECT_EQ(problems_of(replaced(good, "\"gelu\": 0", "\"gelu\": -1")).at(0),
            "p.json: far_seconds_per_byte.gelu is -1.0; use a number from 0 to 1");
  EXPECT_EQ(problems_of(replaced(good, "\"f64\"", "\"f63\"")).at(0),
            "p.json: products has the unknown type 'f63'; use f32, f64, bf16, f16");
  EXPECT_EQ(problems_of(replaced(good, "\"shift\"", "\"shuffle\"")).size(), 1u);
  EXPECT_EQ(problems_of(replaced(good, "\"shift\"", "\"all_reduce\"")).at(0),
            "p.json: collectives[1].kind all_reduce over 2 ranks on 1 hosts by direct, apart, is there twice");
  EXPECT_EQ(problems_of(replaced(good, "\"f32\"", "\"f64\"")).size(), 1u);
}

TEST(HardwareProfile, CurvesRefuseWhatIsNoCurve) {
  EXPECT_THROW(RateCurve(RateCurve::Points{}), ConfigError);
  EXPECT_THROW(RateCurve({{1, 0}}), ConfigError);
  EXPECT_THROW(RateCurve({{1, NAN}}), ConfigError);
  EXPECT_THROW(RateCurve({{2, 1}, {1, 1}}), ConfigError);
  EXPECT_THROW(TransferCurve({{1, 1}}), ConfigError);
  EXPECT_THROW(TransferCurve({{1, 2}, {2, 1}}), ConfigError);
}

}  // namespace
}  // namespace annulus
