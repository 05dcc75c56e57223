#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/training/safetensors.h"
#include "runtime/training/safetensors_writer.h"
#include "tests/training/support.h"

namespace annulus::testing {

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
inline std::string raw_file(const std::string& header, std::string_view data) {
  const std::uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + std::string(data);
}

template <class T>
std::string raw_bytes(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

inline Shape random_shape(Random& random) {
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

}  // namespace annulus::testing
