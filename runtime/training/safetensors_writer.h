#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/core/tensor.h"
#include "runtime/training/atomic_file.h"

namespace annulus {

struct TensorDeclaration {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
};

struct SafetensorsWriteOptions {
  Existing existing = Existing::refuse;
  std::int64_t shard_limit_bytes = 5'000'000'000;  ///< of tensor data in one file, as Hugging Face has it
  std::map<std::string, std::string> metadata = {{"format", "pt"}};  ///< transformers refuses files without `format`
};

/// Writes safetensors as a stream: the tensors are declared first, then their bytes follow in the declared order, so
/// that nobody ever holds them all. Over the limit the files are `model-00001-of-00003.safetensors`, ... and
/// `model.safetensors.index.json` for a `path` that ends in `model.safetensors`; these never replace existing files,
/// since several files cannot be replaced at once. Nothing appears before `finish`, the index last.
class SafetensorsWriter {
 public:
  /// Throws ConfigError where the files cannot be written or are there already; InternalError for a name declared
  /// twice.
  SafetensorsWriter(const std::string& path, std::vector<TensorDeclaration> tensors,
                    const SafetensorsWriteOptions& options);

  /// The next elements, row-major, of the tensor that is due: the whole of it, or some rows. Throws InternalError where
  /// another tensor is due, the type differs, or there are too many; ConfigError where they cannot be written.
  void write(std::string_view name, const Tensor& elements);
  /// Throws InternalError where tensors are incomplete.
  void finish();

 private:
  void name_shards(const std::string& path, const SafetensorsWriteOptions& options);
  void open_shard(std::int64_t shard);
  void advance();

  std::vector<TensorDeclaration> tensors_;
  std::vector<std::int64_t> shard_of_;  ///< by tensor
  std::vector<std::string> paths_;      ///< by shard
  std::string index_path_;              ///< empty where there is one file
  SafetensorsWriteOptions options_;
  std::vector<std::unique_ptr<AtomicFile>> files_;  ///< those begun
  std::size_t due_ = 0;                             ///< tensor
  std::int64_t written_bytes_ = 0;                  ///< of it
};

}  // namespace annulus
