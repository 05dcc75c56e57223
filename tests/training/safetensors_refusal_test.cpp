#include <gtest/gtest.h>

#include <cstring>

#include "runtime/training/safetensors.h"
#include "tests/training/safetensors_support.h"
#include "tests/training/support.h"

namespace annulus {
namespace {

using testing::contents;
using testing::expect_error;
using testing::Owned;
using testing::Random;
using testing::RandomModel;
using testing::raw_bytes;
using testing::raw_file;
using testing::TemporaryFolder;

void expect_refused(const std::string& bytes, std::vector<std::string> parts) {
  const TemporaryFolder folder;
  const std::string path = folder.write("bad.safetensors", bytes);
  parts.push_back(path + ": ");
  expect_error([&] { SafetensorsReader{path}; }, parts);
}

constexpr const char* kFour = R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";

TEST(BadSafetensors, AreRefusedForTheirHeader) {
  expect_refused("", {"is cut off", "0 bytes"});
  expect_refused("PK\x03\x04 a zip file of some kind", {"is not a safetensors file", "50 4b 03 04", "PK..", "again"});
  expect_refused(raw_file("[1, 2]", ""), {"is not a safetensors file"});
  expect_refused(raw_file(kFour, "1234").substr(0, 30), {"is cut off: its header needs 54 bytes and 22 are there"});
  expect_refused(raw_file(R"({"w": {)", ""), {"JSON cannot be read"});
  expect_refused(raw_file(std::string(R"({"a)") + "\xFF" + R"(": 1})", ""), {"JSON cannot be read"});
  expect_refused(raw_file(R"({"w":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"w":{"dtype":"F32","shape":[0],)"
                          R"("data_offsets":[0,0]}})",
                          ""),
                 {"tensor 'w' is described twice"});
  expect_refused(raw_file(R"({"__metadata__":3})", ""), {"__metadata__ is no object"});
  std::string huge = raw_file(kFour, "1234");
  huge[7] = 0x7F;
  expect_refused(huge, {"is not a safetensors file"});
}

TEST(BadSafetensors, AreRefusedForATensor) {
  const auto one = [](const std::string& entry) { return raw_file(R"({"w":)" + entry + "}", "12345678"); };
  expect_refused(one("7"), {"tensor 'w' lacks one of dtype"});
  expect_refused(one(R"({"dtype":"F32","shape":[2]})"), {"'w' lacks one of dtype", "data_offsets"});
  expect_refused(one(R"({"dtype":"F31","shape":[2],"data_offsets":[0,8]})"), {"'w' has the unknown type 'F31'"});
  expect_refused(one(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})"),
                 {"'w' has -2 in its shape", "whole number"});
  expect_refused(one(R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})"), {"'w' has 2.0 in its shape"});
  expect_refused(one(R"({"dtype":"F32","shape":[1,1,1,1,2],"data_offsets":[0,8]})"), {"'w'", "at most 4 extents"});
  expect_refused(one(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})"),
                 {"'w' has 8 bytes", "[3] of F32 needs 12"});
  expect_refused(one(R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})"), {"'w' has -8 bytes"});
  expect_refused(one(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]})"), {"'w'", "too large"});
}

TEST(BadSafetensors, AreRefusedForTheirLayout) {
  const auto two = [](const std::string& first, const std::string& second, std::string_view data) {
    return raw_file(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":)" + first +
                        R"(},"b":{"dtype":"F32","shape":[1],"data_offsets":)" + second + "}}",
                    data);
  };
  expect_refused(two("[0,4]", "[2,6]", "123456"), {"'b' begins at byte 2", "ends at 4", "they overlap", "again"});
  expect_refused(two("[0,4]", "[0,4]", "1234"), {"'b' begins at byte 0", "they overlap"});
  expect_refused(two("[8,12]", "[0,4]", "123456789012"), {"'a' begins at byte 8", "ends at 4", "there is a hole"});
  expect_refused(two("[0,4]", "[4,8]", "1234567"), {"is cut off", "need 8 bytes of data and 7 are there"});
  expect_refused(two("[0,4]", "[4,8]", "123456789"), {"longer than it should be", "need 8 bytes of data and 9"});
}

/// Whatever is wrong with a file, it is refused, or every read stays inside of it (which the sanitizers see).
TEST(BadSafetensors, AreNeverReadOutside) {
  Random random;
  const TemporaryFolder folder;
  RandomModel model(random);
  model.write(folder / "model.safetensors", random, {});
  const std::string good = contents(folder / "model.safetensors");
  std::uint64_t header_length = 0;
  std::memcpy(&header_length, good.data(), 8);
  int refused = 0;
  for (int round = 0; round < 300; ++round) {
    std::string bad = good;
    for (std::int64_t change = 1 + random.below(3); change > 0; --change) {
      const auto at = static_cast<std::size_t>(random.below(8 + static_cast<std::int64_t>(header_length)));
      bad[at] = random.below(2) ? static_cast<char>('0' + random.below(10)) : static_cast<char>(random.below(256));
    }
    if (random.below(4) == 0) bad.resize(static_cast<std::size_t>(random.below(std::ssize(bad))));
    const std::string path = folder.write("bad.safetensors", bad);
    try {
      const SafetensorsReader reader(path);
      for (const std::string& name : reader.names()) {
        const StoredTensor& info = reader.info(name);
        if (info.type.find('I') != std::string::npos || info.type.find('U') != std::string::npos) continue;
        Owned<double> values(info.shape);
        if (info.type.starts_with("F") && !info.type.starts_with("F8")) reader.read(name, values.tensor());
      }
    } catch (const ConfigError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 60);
}

TEST(BadSafetensors, AreRefusedForTheirIndex) {
  const TemporaryFolder folder;
  folder.write("one.safetensors", raw_file(kFour, "1234"));
  const auto refused = [&](const std::string& index, std::vector<std::string> parts) {
    const std::string path = folder.write("model.safetensors.index.json", index);
    expect_error([&] { SafetensorsReader{path}; }, parts);
    expect_error([&] { SafetensorsReader{folder / ""}; }, parts);
  };
  refused("{", {"index.json", "JSON cannot be read"});
  refused("[]", {"index.json", "is no object"});
  refused("{}", {"index.json", "no object 'weight_map'"});
  refused(R"({"weight_map":{"w":"two.safetensors"}})", {"two.safetensors", "No such file"});
  refused(R"({"weight_map":{"x":"one.safetensors"}})", {"index.json", "'x' is in one.safetensors, and it is not"});
  refused(R"({"weight_map":{"w":"../one.safetensors"}})", {"index.json", "'w'", "file in the same folder"});
  refused(R"({"weight_map":{"w":"one.safetensors","w":"one.safetensors"}})", {"'w' is described twice"});
  folder.write("model.safetensors.index.json", R"({"weight_map":{"w":"one.safetensors"}})");
  EXPECT_TRUE(SafetensorsReader(folder / "").contains("w"));
}

TEST(BadSafetensors, FoldersAndTensorsThatAreNotThereAreNamed) {
  const TemporaryFolder folder;
  expect_error([&] { SafetensorsReader(folder / "none"); }, {folder / "none", "No such file"});
  expect_error([&] { SafetensorsReader(folder / ""); }, {"neither model.safetensors nor", "give a folder or file"});
  const SafetensorsReader reader(folder.write("m", raw_file(kFour, "1234")));
  Owned<float> one({1}), two({2});
  expect_error([&] { reader.info("h.0.attn"); }, {folder / "m", "no tensor 'h.0.attn' among its 1"});
  expect_error([&] { reader.read("w", two.tensor()); }, {"'w' is [1]", "rows [0, 2)", "configured size"});
  expect_error([&] { reader.read("w", one.tensor(), {1, 0}); }, {"rows [1, 2)"});
  expect_error([&] { reader.read("w", one.tensor(), {0, 1}); }, {"columns [1, 2)"});
  const std::string large = raw_bytes<std::int64_t>({1LL << 31});
  const SafetensorsReader wide(
      folder.write("i", raw_file(R"({"n":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}})", large)));
  Owned<std::int32_t> integer({1});
  expect_error([&] { wide.read("n", integer.tensor()); }, {folder / "i", "'n'", "2147483648 does not fit 32 bits"});
}

}  // namespace
}  // namespace annulus
