#include "runtime/training/safetensors.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "runtime/training/safetensors_writer.h"
#include "tests/training/support.h"

namespace annulus {
namespace {

using testing::contents;
using testing::expect_error;
using testing::Random;
using testing::TemporaryFolder;

/// Elements with their tensor.
template <class T>
struct Owned {
  explicit Owned(const Shape& shape) : values(static_cast<std::size_t>(shape.elements())), shape_(shape) {}
  Tensor tensor() { return {reinterpret_cast<std::byte*>(values.data()), dtype_of<T>(), shape_}; }
  std::vector<T> values;

 private:
  Shape shape_;
};

/// A file of a header and data as they are, right or wrong.
std::string raw_file(const std::string& header, std::string_view data) {
  const std::uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + std::string(data);
}

template <class T>
std::string raw_bytes(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

Shape random_shape(Random& random) {
  Shape shape;
  for (std::int64_t rank = random.below(5); rank > 0; --rank)
    shape.append(random.below(8) == 0 ? 0 : 1 + random.below(9));
  return shape;
}

/// Random tensors of random types, written in pieces of rows.
struct RandomModel {
  explicit RandomModel(Random& random) {
    for (std::int64_t i = 0; i < 12; ++i) {
      const DType dtype = std::array{DType::f32, DType::f64, DType::i32}[static_cast<std::size_t>(random.below(3))];
      tensors.push_back({"layers." + std::to_string(i) + ".\"w\u00e9ight\"", dtype, random_shape(random)});
      data.emplace_back(static_cast<std::size_t>(tensors.back().shape.elements() * size_of(dtype)));
      if (dtype == DType::i32) {
        for (auto& byte : data.back()) byte = static_cast<std::byte>(random.below(256));
      } else {
        for (std::int64_t e = 0; e < tensors.back().shape.elements(); ++e) {
          const double value = random.normal();
          const float narrow = static_cast<float>(value);
          std::memcpy(data.back().data() + e * size_of(dtype),
                      dtype == DType::f64 ? static_cast<const void*>(&value) : &narrow,
                      static_cast<std::size_t>(size_of(dtype)));
        }
      }
    }
  }

  void write(const std::string& path, Random& random, const SafetensorsWriteOptions& options) {
    SafetensorsWriter writer(path, tensors, options);
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const TensorDeclaration& tensor = tensors[i];
      const std::int64_t row_bytes = tensor.shape.columns() * size_of(tensor.dtype);
      for (std::int64_t row = 0; row < tensor.shape.rows();) {
        const std::int64_t rows = 1 + random.below(tensor.shape.rows() - row);
        writer.write(tensor.name, {data[i].data() + row * row_bytes, tensor.dtype, {rows, tensor.shape.columns()}});
        row += rows;
      }
    }
    writer.finish();
  }

  void expect_in(const SafetensorsReader& reader) const {
    EXPECT_EQ(reader.names().size(), tensors.size());
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      ASSERT_TRUE(reader.contains(tensors[i].name));
      EXPECT_EQ(reader.info(tensors[i].name).shape, tensors[i].shape);
      std::vector<std::byte> read(data[i].size());
      reader.read(tensors[i].name, {read.data(), tensors[i].dtype, tensors[i].shape});
      EXPECT_EQ(read, data[i]) << tensors[i].name;
    }
  }

  std::vector<TensorDeclaration> tensors;
  std::vector<std::vector<std::byte>> data;
};

TEST(Safetensors, RoundTripRandomTensorsInOneFile) {
  Random random;
  for (int round = 0; round < 30; ++round) {
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
  for (int round = 0; round < 30; ++round) {
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
  for (int round = 0; round < 500; ++round) {
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
  EXPECT_GT(refused, 100);
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
