#include "runtime/training/safetensors.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "runtime/training/safetensors_writer.h"
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

TEST(Safetensors, RoundTripRandomTensorsInOneFile) {
  Random random;
  for (int round = 0; round < 10; ++round) {
    const TemporaryFolder folder;
    RandomModel model(random);
    model.write(folder / "model.safetensors", random, {.metadata = {{"format", "pt"}, {"step", "7"}}});
    const SafetensorsReader reader(folder / "model.safetensors");
    model.expect_in(reader);
    EXPECT_EQ(reader.metadata(), (std::map<std::string, std::string>{{"format", "pt"}, {"step", "7"}}));
    model.expect_in(SafetensorsReader(folder / ""));
    EXPECT_EQ(folder.names().size(), 1u);
    const std::string bytes = contents(folder / "model.safetensors");
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), 8);
    EXPECT_EQ(length % 8, 0u);
  }
}

TEST(Safetensors, RoundTripRandomTensorsInSeveralFiles) {
  Random random;
  for (int round = 0; round < 10; ++round) {
    const TemporaryFolder folder;
    RandomModel model(random);
    const std::int64_t limit = 1 + random.below(4000);
    model.write(folder / "model.safetensors", random, {.shard_limit_bytes = limit});
    model.expect_in(SafetensorsReader(folder / ""));
    const auto names = folder.names();
    for (const std::string& name : names) {
      if (name.ends_with(".json")) continue;
      const SafetensorsReader shard(folder / name);
      std::int64_t bytes = 0, tensors_with_bytes = 0;
      for (const auto& tensor : model.tensors) {
        const std::int64_t tensor_bytes = tensor.shape.elements() * size_of(tensor.dtype);
        if (!shard.contains(tensor.name) || tensor_bytes == 0) continue;
        bytes += tensor_bytes;
        ++tensors_with_bytes;
      }
      EXPECT_TRUE(bytes <= limit || tensors_with_bytes == 1) << name;
    }
    const bool sharded = std::find(names.begin(), names.end(), "model.safetensors.index.json") != names.end();
    EXPECT_EQ(sharded, names.size() > 1);
    EXPECT_EQ(std::count(names.begin(), names.end(), "model.safetensors"), sharded ? 0 : 1);
  }
}

TEST(Safetensors, ReadBlocksOfRowsAndColumns) {
  Random random;
  const TemporaryFolder folder;
  const Shape shape{7, 3, 5};
  Owned<float> whole(shape);
  for (float& value : whole.values) value = static_cast<float>(random.normal());
  SafetensorsWriter writer(folder / "m", {{"w", DType::f32, shape}}, {});
  writer.write("w", whole.tensor());
  writer.finish();
  const SafetensorsReader reader(folder / "m");
  for (std::int64_t row = 0; row < 7; ++row) {
    for (std::int64_t rows = 0; row + rows <= 7; ++rows) {
      for (std::int64_t column = 0; column < 15; column += 2) {
        for (std::int64_t columns = 1; column + columns <= 15; columns += 3) {
          Owned<double> block(Shape{rows, columns});
          reader.read("w", block.tensor(), {row, column});
          for (std::int64_t r = 0; r < rows; ++r) {
            for (std::int64_t c = 0; c < columns; ++c) {
              EXPECT_EQ(block.values[static_cast<std::size_t>(r * columns + c)],
                        whole.values[static_cast<std::size_t>((row + r) * 15 + column + c)]);
            }
          }
        }
      }
    }
  }
}

TEST(Safetensors, ConvertNarrowTypes) {
  const TemporaryFolder folder;
  // Bit patterns of IEEE 754 binary16: 1, -2, largest, least normal, least subnormal, -0, infinity, NaN, 1/3.
  const std::string half =
      raw_bytes<std::uint16_t>({0x3C00, 0xC000, 0x7BFF, 0x0400, 0x0001, 0x8000, 0x7C00, 0x7E00, 0x3555});
  // bfloat16: 1, -2, pi.
  const std::string brain = raw_bytes<std::uint16_t>({0x3F80, 0xC000, 0x4049});
  const std::string wide = raw_bytes<std::int64_t>({-5, 2147483647});
  const std::string path =
      folder.write("m.safetensors", raw_file(R"({"h":{"dtype":"F16","shape":[9],"data_offsets":[0,18]},)"
                                             R"("b":{"dtype":"BF16","shape":[3],"data_offsets":[18,24]},)"
                                             R"("i":{"dtype":"I64","shape":[2],"data_offsets":[24,40]}})",
                                             half + brain + wide));
  const SafetensorsReader reader(path);
  Owned<float> halves({9});
  reader.read("h", halves.tensor());
  const float expected[] = {1, -2, 65504, 0x1p-14f, 0x1p-24f, -0.0f, std::numeric_limits<float>::infinity()};
  for (std::size_t i = 0; i < 7; ++i) EXPECT_EQ(halves.values[i], expected[i]);
  EXPECT_TRUE(std::signbit(halves.values[5]));
  EXPECT_TRUE(std::isnan(halves.values[7]));
  EXPECT_EQ(halves.values[8], 0.333251953125f);
  Owned<double> brains({3});
  reader.read("b", brains.tensor());
  EXPECT_EQ(brains.values, (std::vector<double>{1, -2, 3.140625}));
  Owned<std::int32_t> integers({2});
  reader.read("i", integers.tensor());
  EXPECT_EQ(integers.values, (std::vector<std::int32_t>{-5, 2147483647}));
  Owned<float> two({2});
  expect_error([&] { reader.read("i", two.tensor()); }, {path, "'i'", "type I64", "read as f32", "store it as F32"});
  expect_error([&] { reader.read("h", integers.tensor()); }, {path, "'h'", "type F16", "read as i32", "I32 or I64"});
}

/// Every half, against the arithmetic definition.
TEST(Safetensors, ConvertEveryHalf) {
  const TemporaryFolder folder;
  std::vector<std::uint16_t> bits(65536);
  for (std::size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<std::uint16_t>(i);
  const SafetensorsReader reader(folder.write(
      "m", raw_file(R"({"h":{"dtype":"F16","shape":[65536],"data_offsets":[0,131072]}})", raw_bytes(bits))));
  Owned<float> read({65536});
  reader.read("h", read.tensor());
  for (std::size_t i = 0; i < bits.size(); ++i) {
    const int exponent = (bits[i] >> 10) & 31, fraction = bits[i] & 1023;
    if (exponent == 31 && fraction) {
      EXPECT_TRUE(std::isnan(read.values[i]));
      continue;
    }
    double value = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    if (exponent == 31) value = std::numeric_limits<double>::infinity();
    EXPECT_EQ(read.values[i], bits[i] >> 15 ? -value : value);
  }
}

TEST(SafetensorsWriter, NeverShowsAnIncompleteFile) {
  const TemporaryFolder folder;
  const std::vector<TensorDeclaration> tensors = {{"a", DType::f32, {2}}, {"b", DType::f32, {2, 2}}};
  Owned<float> a({2}), b({2, 2});
  {
    SafetensorsWriter writer(folder / "model.safetensors", tensors, {.shard_limit_bytes = 8});
    expect_error<InternalError>([&] { writer.write("b", b.tensor()); }, {"'b' of f32 is written, and 'a' is due"});
    expect_error<InternalError>([&] { writer.write("a", b.tensor()); }, {"'a' has 8 bytes, and more are written"});
    Owned<double> wide({2});
    expect_error<InternalError>([&] { writer.write("a", wide.tensor()); }, {"'a' of f64 is written"});
    writer.write("a", a.tensor());
    expect_error<InternalError>([&] { writer.finish(); }, {"'b' is incomplete"});
    for (const std::string& name : folder.names()) EXPECT_NE(name.find(".partial-"), std::string::npos) << name;
  }
  EXPECT_TRUE(folder.names().empty()) << "abandoned: nothing is left behind";
  SafetensorsWriter writer(folder / "model.safetensors", tensors, {.shard_limit_bytes = 8});
  writer.write("a", a.tensor());
  writer.write("b", b.tensor());
  expect_error<InternalError>([&] { writer.write("c", a.tensor()); }, {"'nothing' is due"});
  writer.finish();
  EXPECT_EQ(folder.names(),
            (std::vector<std::string>{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
                                      "model.safetensors.index.json"}));
}

TEST(SafetensorsWriter, OverwritesNothingUnlessTold) {
  const TemporaryFolder folder;
  const std::vector<TensorDeclaration> tensors = {{"a", DType::f32, {2}}, {"b", DType::f32, {2}}};
  const auto open = [&](Existing existing, std::int64_t limit) {
    return std::make_unique<SafetensorsWriter>(
        folder / "model.safetensors", tensors,
        SafetensorsWriteOptions{.existing = existing, .shard_limit_bytes = limit, .metadata = {}});
  };
  folder.write("model.safetensors", "precious");
  expect_error([&] { open(Existing::refuse, 100); }, {"model.safetensors", "exists already"});
  expect_error([&] { open(Existing::replace, 8); },
               {"model.safetensors", "exists already", "2 files", "another folder"});
  EXPECT_EQ(contents(folder / "model.safetensors"), "precious");
  const auto writer = open(Existing::replace, 100);
  Owned<float> values({2});
  writer->write("a", values.tensor());
  writer->write("b", values.tensor());
  EXPECT_EQ(contents(folder / "model.safetensors"), "precious") << "until all is there";
  writer->finish();
  EXPECT_EQ(SafetensorsReader(folder / "model.safetensors").names(), (std::vector<std::string>{"a", "b"}));
  expect_error<InternalError>(
      [&] {
        SafetensorsWriter(folder / "x", {{"a", {}, {1}}, {"a", {}, {1}}}, {});
      },
      {"declared twice"});
}

}  // namespace
}  // namespace annulus
