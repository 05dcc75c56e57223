#include "runtime/training/metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "tests/training/support.h"

namespace annulus {
namespace {

using testing::contents;
using testing::expect_error;
using testing::Random;
using testing::TemporaryFolder;

TEST(Metrics, AreOneObjectALineWithKeysInOrder) {
  const TemporaryFolder folder;
  MetricsWriter writer(folder / "metrics.jsonl");
  writer.write({{"step", std::int64_t{1}}, {"loss", 2.5}, {"a", true}, {"profile", std::string("say \"hi\"\n")}});
  EXPECT_EQ(contents(folder / "metrics.jsonl"),
            "{\"step\":1,\"loss\":2.5,\"a\":true,\"profile\":\"say \\\"hi\\\"\\n\"}\n")
      << "visible at once";
  writer.write({{"step", std::int64_t{1} << 60}});
  MetricsWriter(folder / "metrics.jsonl").write({{"later", 0.0}});
  const std::string text = contents(folder / "metrics.jsonl");
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3);
  EXPECT_TRUE(text.ends_with("{\"step\":1152921504606846976}\n{\"later\":0.0}\n")) << "appended: " << text;
}

TEST(Metrics, WriteNullForWhatJsonLacks) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(metrics_line({{"a", std::nan("")}, {"b", kInfinity}, {"c", -kInfinity}, {"d", 1.0}}),
            R"({"a":null,"b":null,"c":null,"d":1.0})");
  EXPECT_EQ(metrics_line({{"host", std::string("\xFF")}}), "{\"host\":\"\uFFFD\"}");
  EXPECT_EQ(metrics_line({}), "{}");
}

TEST(Metrics, KeepEveryBitOfADouble) {
  Random random;
  for (int round = 0; round < 1000; ++round) {
    const double value = random.normal() * std::pow(10.0, static_cast<double>(random.below(40) - 20));
    EXPECT_EQ(nlohmann::json::parse(metrics_line({{"x", value}}))["x"].get<double>(), value);
  }
}

TEST(Metrics, RefuseAFolderThatIsNotThere) {
  const TemporaryFolder folder;
  expect_error([&] { MetricsWriter(folder / "no/metrics.jsonl"); },
               {folder / "no/metrics.jsonl", "No such file", "output folder that can be written"});
}

TEST(Metrics, SayThatTheDiskIsFull) {
  MetricsWriter writer("/dev/full");
  expect_error([&] { writer.write({{"step", 1.0}}); }, {"/dev/full", "No space left", "has space"});
}

}  // namespace
}  // namespace annulus
