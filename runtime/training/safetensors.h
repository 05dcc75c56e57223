#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/core/tensor.h"
#include "runtime/training/mapped_file.h"

namespace annulus {

/// A tensor as a safetensors file describes it.
struct StoredTensor {
  std::string type;  ///< in the format's own words: F64, F32, F16, BF16, I64, I32, ...
  Shape shape;
  std::int64_t offset = 0;  ///< of its first byte in the file
  int file = 0;             ///< number of the shard
};

/// Where a block of a tensor begins, the tensor seen as a matrix [rows, columns] (a vector has one column).
struct BlockOrigin {
  std::int64_t row = 0;
  std::int64_t column = 0;
};

/// Tensors by name from safetensors (https://github.com/huggingface/safetensors), memory-mapped: one file, or several
/// with an index. Everything that the format promises is checked when it is opened, so that no read leaves the file.
class SafetensorsReader {
 public:
  /// `path` is a `.safetensors` file, a `.safetensors.index.json`, or a folder with `model.safetensors` or
  /// `model.safetensors.index.json`. Throws ConfigError naming file, tensor and rule.
  explicit SafetensorsReader(const std::string& path);

  const std::string& path() const { return path_; }
  /// Sorted.
  std::vector<std::string> names() const;
  bool contains(std::string_view name) const { return tensors_.find(name) != tensors_.end(); }
  /// Throws ConfigError where there is no such tensor.
  const StoredTensor& info(std::string_view name) const;
  /// The header's `__metadata__` (of the first shard).
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  /// Reads the block of destination.shape.rows() x columns() at `origin`. F64, F32, F16 and BF16 are read as f32 or
  /// f64, I64 and I32 as i32. Throws ConfigError where there is no such tensor, the block leaves it, or the types do
  /// not go together.
  void read(std::string_view name, const Tensor& destination, BlockOrigin origin = {}) const;

 private:
  void open_index(const std::string& path);

  std::string path_;
  std::vector<MappedFile> files_;
  std::map<std::string, StoredTensor, std::less<>> tensors_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace annulus
