#include "runtime/training/safetensors.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <filesystem>
#include <limits>
#include <set>
#include <system_error>
#include <type_traits>

#include "runtime/core/error.h"
#include "runtime/training/safetensors_header.h"

namespace annulus {
namespace {

namespace fs = std::filesystem;

static_assert(std::endian::native == std::endian::little, "files are little-endian, and read as they lie in memory");

/// `count` elements from bytes that need not be aligned.
template <class Source, class Target>
void convert(const std::byte* source, Target* target, std::int64_t count) {
  if constexpr (std::is_same_v<Source, Target>) {
    std::memcpy(target, source, static_cast<std::size_t>(count) * sizeof(Target));
    return;
  }
  for (std::int64_t i = 0; i < count; ++i) {
    Source value;
    std::memcpy(&value, source + static_cast<std::size_t>(i) * sizeof value, sizeof value);
    if constexpr (std::is_integral_v<Source> && sizeof(Source) > sizeof(Target)) {
      if (value < std::numeric_limits<Target>::min() || value > std::numeric_limits<Target>::max()) {
        throw ConfigError(fmt::format("the number {} does not fit 32 bits", value));
      }
    }
    target[i] = static_cast<Target>(value);
  }
}

template <class Target>
using Conversion = void (*)(const std::byte*, Target*, std::int64_t);

/// How elements of `type` are read as `Target`; null where they are not.
template <class Target>
Conversion<Target> conversion(const std::string& type) {
  if constexpr (std::is_floating_point_v<Target>) {
    if (type == "F32") return convert<float, Target>;
    if (type == "F64") return convert<double, Target>;
    if (type == "BF16") return convert<BFloat16, Target>;
    if (type == "F16") return convert<Float16, Target>;
  } else {
    if (type == "I32") return convert<std::int32_t, Target>;
    if (type == "I64") return convert<std::int64_t, Target>;
  }
  return nullptr;
}

/// Copies a block, row by row; false where the types do not go together.
template <class Target>
bool read_block(const std::byte* data, const StoredTensor& tensor, const Tensor& destination, BlockOrigin origin) {
  const Conversion<Target> convert_row = conversion<Target>(tensor.type);
  if (!convert_row) return false;
  if (destination.elements() == 0) return true;
  const std::int64_t element_bytes = safetensors_type_bytes(tensor.type);
  const std::int64_t columns = destination.shape.columns(), stored_columns = tensor.shape.columns();
  Target* target = destination.as<Target>();
  if (columns == stored_columns) {  // whole rows lie one after another
    convert_row(data + origin.row * columns * element_bytes, target, destination.elements());
    return true;
  }
  for (std::int64_t row = 0; row < destination.shape.rows(); ++row) {
    const std::int64_t first = (origin.row + row) * stored_columns + origin.column;
    convert_row(data + first * element_bytes, target + row * columns, columns);
  }
  return true;
}

std::string resolved(const std::string& path) {
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) return path;
  for (const char* name : {"model.safetensors", "model.safetensors.index.json"}) {
    if (fs::exists(fs::path(path) / name, ignored)) return (fs::path(path) / name).string();
  }
  throw ConfigError(
      fmt::format("{}: holds neither model.safetensors nor model.safetensors.index.json; give a folder or file "
                  "with weights",
                  path));
}

}  // namespace

SafetensorsReader::SafetensorsReader(const std::string& path) : path_(resolved(path)) {
  if (path_.ends_with(".json")) {
    open_index(path_);
    return;
  }
  files_.emplace_back(path_);
  SafetensorsHeader header = parse_safetensors_header(files_.back());
  tensors_ = std::move(header.tensors);
  metadata_ = std::move(header.metadata);
}

void SafetensorsReader::open_index(const std::string& path) {
  const std::map<std::string, std::string> shard_of = parse_safetensors_index(MappedFile(path));
  std::set<std::string> shards;
  for (const auto& [name, shard] : shard_of) shards.insert(shard);
  for (const std::string& shard : shards) {
    files_.emplace_back((fs::path(path).parent_path() / shard).string());
    SafetensorsHeader header = parse_safetensors_header(files_.back());
    if (files_.size() == 1) metadata_ = std::move(header.metadata);
    for (const auto& [name, its_shard] : shard_of) {
      if (its_shard != shard) continue;
      const auto found = header.tensors.find(name);
      if (found == header.tensors.end()) {
        throw ConfigError(
            fmt::format("{}: says that tensor '{}' is in {}, and it is not; export or download the files again", path,
                        name, shard));
      }
      found->second.file = static_cast<int>(files_.size()) - 1;
      tensors_.emplace(name, found->second);
    }
  }
}

std::vector<std::string> SafetensorsReader::names() const {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : tensors_) names.push_back(name);
  return names;
}

const StoredTensor& SafetensorsReader::info(std::string_view name) const {
  const auto found = tensors_.find(name);
  if (found != tensors_.end()) return found->second;
  throw ConfigError(fmt::format("{}: has no tensor '{}' among its {}; give weights of the same kind of model", path_,
                                name, tensors_.size()));
}

void SafetensorsReader::read(std::string_view name, const Tensor& destination, BlockOrigin origin) const {
  const StoredTensor& tensor = info(name);
  const std::int64_t rows = destination.shape.rows(), columns = destination.shape.columns();
  if (origin.row < 0 || origin.column < 0 || origin.row + rows > tensor.shape.rows() ||
      origin.column + columns > tensor.shape.columns()) {
    throw ConfigError(fmt::format(
        "{}: tensor '{}' is {}, and rows [{}, {}) with columns [{}, {}) are wanted; give weights of "
        "a model of the configured size",
        path_, name, tensor.shape.str(), origin.row, origin.row + rows, origin.column, origin.column + columns));
  }
  const std::byte* data = files_[static_cast<std::size_t>(tensor.file)].data() + tensor.offset;
  bool known = false;
  try {
    switch (destination.dtype) {
      case DType::f32:
        known = read_block<float>(data, tensor, destination, origin);
        break;
      case DType::f64:
        known = read_block<double>(data, tensor, destination, origin);
        break;
      case DType::i32:
        known = read_block<std::int32_t>(data, tensor, destination, origin);
        break;
      default:
        throw InternalError("weights are read as f32 or f64, and rounded where they are used");
    }
  } catch (const ConfigError& error) {
    throw ConfigError(fmt::format("{}: tensor '{}': {}; store it as I32", path_, name, error.what()));
  }
  if (known) return;
  throw ConfigError(fmt::format("{}: tensor '{}' has the type {}, which cannot be read as {}; store it as {}", path_,
                                name, tensor.type, name_of(destination.dtype),
                                is_float(destination.dtype) ? "F32, F64, F16 or BF16" : "I32 or I64"));
}

}  // namespace annulus
