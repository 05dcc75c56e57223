#include "runtime/training/safetensors_writer.h"

#include <fmt/format.h>

#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>
#include <utility>

#include "runtime/core/error.h"

namespace annulus {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

const char* type_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "F32";
    case DType::f64:
      return "F64";
    case DType::i32:
      return "I32";
    case DType::bf16:
      return "BF16";
    case DType::f16:
      return "F16";
  }
  return "?";
}

std::int64_t bytes_of(const TensorDeclaration& tensor) { return tensor.shape.elements() * size_of(tensor.dtype); }

ordered_json shape_of(const TensorDeclaration& tensor) {
  ordered_json extents = ordered_json::array();
  for (int dim = 0; dim < tensor.shape.rank(); ++dim) extents.push_back(tensor.shape[dim]);
  return extents;
}

/// Tensors to shards, in order: a new one begins where the next tensor would pass the limit.
std::vector<std::int64_t> shards_of(const std::vector<TensorDeclaration>& tensors, std::int64_t limit_bytes) {
  std::vector<std::int64_t> shards;
  std::int64_t shard = 0, bytes = 0;
  for (const TensorDeclaration& tensor : tensors) {
    if (bytes > 0 && bytes + bytes_of(tensor) > limit_bytes) {
      ++shard;
      bytes = 0;
    }
    bytes += bytes_of(tensor);
    shards.push_back(shard);
  }
  return shards;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(const std::string& path, std::vector<TensorDeclaration> tensors,
                                     const SafetensorsWriteOptions& options)
    : tensors_(std::move(tensors)), shard_of_(shards_of(tensors_, options.shard_limit_bytes)), options_(options) {
  std::set<std::string_view> names;
  for (const TensorDeclaration& tensor : tensors_) {
    if (tensor.name == "__metadata__" || !names.insert(tensor.name).second) {
      throw InternalError(fmt::format("tensor '{}' is declared twice, or has a reserved name", tensor.name));
    }
  }
  name_shards(path, options);
  open_shard(0);
  advance();
}

void SafetensorsWriter::name_shards(const std::string& path, const SafetensorsWriteOptions& options) {
  const std::int64_t shards = shard_of_.empty() ? 1 : shard_of_.back() + 1;
  if (shards == 1) {
    paths_ = {path};
    return;
  }
  const fs::path stem = fs::path(path).parent_path() / fs::path(path).stem();
  for (std::int64_t shard = 1; shard <= shards; ++shard) {
    paths_.push_back(fmt::format("{}-{:05}-of-{:05}.safetensors", stem.string(), shard, shards));
  }
  index_path_ = path + ".index.json";
  options_.existing = Existing::refuse;
  std::vector<std::string> targets = paths_;
  targets.insert(targets.end(), {path, index_path_});
  for (const std::string& target : targets) {
    std::error_code ignored;
    if (!fs::exists(target, ignored)) continue;
    throw ConfigError(
        fmt::format("{}: exists already, and weights of {} bytes a file or less go to {} files, which replace "
                    "nothing; give another folder or remove it",
                    target, options.shard_limit_bytes, shards));
  }
}

void SafetensorsWriter::open_shard(std::int64_t shard) {
  ordered_json header = ordered_json::object();
  if (!options_.metadata.empty()) header["__metadata__"] = options_.metadata;
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    if (shard_of_[i] != shard) continue;
    const std::int64_t end = begin + bytes_of(tensors_[i]);
    header[tensors_[i].name] = {
        {"dtype", type_of(tensors_[i].dtype)}, {"shape", shape_of(tensors_[i])}, {"data_offsets", {begin, end}}};
    begin = end;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // the data begins at a multiple of 8
  const std::uint64_t length = text.size();
  files_.push_back(std::make_unique<AtomicFile>(paths_[static_cast<std::size_t>(shard)], options_.existing));
  files_.back()->write(std::as_bytes(std::span(&length, 1)));
  files_.back()->write(text);
}

/// Moves on from every tensor that has all its bytes, those without any included.
void SafetensorsWriter::advance() {
  while (due_ < tensors_.size() && written_bytes_ == bytes_of(tensors_[due_])) {
    ++due_;
    written_bytes_ = 0;
    const bool next_shard = due_ < tensors_.size() && shard_of_[due_] != shard_of_[due_ - 1];
    if (next_shard) open_shard(shard_of_[due_]);
  }
}

void SafetensorsWriter::write(std::string_view name, const Tensor& elements) {
  if (elements.bytes() == 0) return;
  if (due_ == tensors_.size() || tensors_[due_].name != name || tensors_[due_].dtype != elements.dtype) {
    throw InternalError(fmt::format("tensor '{}' of {} is written, and '{}' is due", name, name_of(elements.dtype),
                                    due_ == tensors_.size() ? "nothing" : tensors_[due_].name));
  }
  if (written_bytes_ + elements.bytes() > bytes_of(tensors_[due_])) {
    throw InternalError(fmt::format("tensor '{}' has {} bytes, and more are written", name, bytes_of(tensors_[due_])));
  }
  files_.back()->write(std::span(elements.data, static_cast<std::size_t>(elements.bytes())));
  written_bytes_ += elements.bytes();
  advance();
}

void SafetensorsWriter::finish() {
  if (due_ < tensors_.size()) throw InternalError(fmt::format("tensor '{}' is incomplete", tensors_[due_].name));
  for (const auto& file : files_) file->commit();
  if (index_path_.empty()) return;
  ordered_json index = {{"metadata", {{"total_size", 0}}}, {"weight_map", ordered_json::object()}};
  std::int64_t total_bytes = 0;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    index["weight_map"][tensors_[i].name] =
        fs::path(paths_[static_cast<std::size_t>(shard_of_[i])]).filename().string();
    total_bytes += bytes_of(tensors_[i]);
  }
  index["metadata"]["total_size"] = total_bytes;
  write_file_atomically(index_path_, index.dump(2) + "\n");
}

}  // namespace annulus
