#include "runtime/training/safetensors_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>
#include <utility>

#include "runtime/core/error.h"

namespace annulus {
namespace {

using nlohmann::json;

constexpr std::int64_t kLargestHeader = 100'000'000;  // the format's own limit

constexpr std::pair<const char*, int> kTypes[] = {
    {"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"I64", 8},  {"I32", 4},
    {"I16", 2}, {"I8", 1},  {"U64", 8}, {"U32", 4},  {"U16", 2},     {"U8", 1},      {"BOOL", 1},
};

[[noreturn]] void refuse(const MappedFile& file, const std::string& problem) {
  throw ConfigError(fmt::format("{}: {}; export or download it again", file.path(), problem));
}

[[noreturn]] void refuse(const MappedFile& file, const std::string& tensor, const std::string& problem) {
  refuse(file, fmt::format("tensor '{}' {}", tensor, problem));
}

/// JSON whose objects may not say a key twice, which the parser alone would pass over in silence.
json parse_strictly(const MappedFile& file, std::string_view text) {
  std::vector<std::set<std::string>> keys;
  const json::parser_callback_t check = [&](int, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second) {
      refuse(file, parsed.get<std::string>(), "is described twice");
    }
    return true;
  };
  try {
    json parsed = json::parse(text.begin(), text.end(), check);
    if (!parsed.is_object()) refuse(file, "its JSON is no object");
    return parsed;
  } catch (const json::exception& error) {
    refuse(file, fmt::format("its JSON cannot be read: {}", error.what()));
  }
}

std::string_view header_text(const MappedFile& file) {
  std::uint64_t length = 0;
  if (file.size() < 8) refuse(file, fmt::format("is cut off, or no safetensors file: it has {} bytes", file.size()));
  std::memcpy(&length, file.data(), sizeof length);
  if (length > static_cast<std::uint64_t>(kLargestHeader) || file.text().substr(8, 1) != "{") {
    refuse(file, fmt::format("is not a safetensors file: it starts with {}, where a header length and '{{' belong",
                             file.first_bytes()));
  }
  if (static_cast<std::int64_t>(length) > file.size() - 8) {
    refuse(file, fmt::format("is cut off: its header needs {} bytes and {} are there", length, file.size() - 8));
  }
  return file.text().substr(8, length);
}

/// A count or an offset.
std::int64_t whole_number(const MappedFile& file, const std::string& tensor, const char* what, const json& value) {
  if (value.is_number_unsigned() && value.get<std::uint64_t>() <= (std::uint64_t{1} << 62))
    return value.get<std::int64_t>();
  refuse(file, tensor, fmt::format("has {} in its {}, where a whole number belongs", value.dump(), what));
}

Shape shape_of(const MappedFile& file, const std::string& name, const json& extents, std::int64_t element_bytes,
               std::int64_t& bytes) {
  if (!extents.is_array() || extents.size() > Shape::kMaxRank) {
    refuse(file, name,
           fmt::format("has the shape {}, where an array of at most {} extents belongs", extents.dump(),
                       +Shape::kMaxRank));
  }
  Shape shape;
  bytes = element_bytes;
  for (const json& extent : extents) {
    shape.append(whole_number(file, name, "shape", extent));
    if (__builtin_mul_overflow(bytes, shape[shape.rank() - 1], &bytes)) {
      refuse(file, name, fmt::format("has the shape {}, which is too large for any file", extents.dump()));
    }
  }
  return shape;
}

struct Range {
  std::int64_t begin, end;
  std::string name;
};

StoredTensor parse_tensor(const MappedFile& file, const std::string& name, const json& entry, Range& range) {
  const bool complete = entry.is_object() && entry.contains("dtype") && entry["dtype"].is_string() &&
                        entry.contains("shape") && entry.contains("data_offsets") && entry["data_offsets"].is_array() &&
                        entry["data_offsets"].size() == 2;
  if (!complete) refuse(file, name, "lacks one of dtype (a string), shape and data_offsets (two numbers)");
  StoredTensor tensor;
  tensor.type = entry["dtype"].get<std::string>();
  const std::int64_t element_bytes = safetensors_type_bytes(tensor.type);
  if (element_bytes == 0) refuse(file, name, fmt::format("has the unknown type '{}'", tensor.type));
  std::int64_t bytes = 0;
  tensor.shape = shape_of(file, name, entry["shape"], element_bytes, bytes);
  range = {whole_number(file, name, "data_offsets", entry["data_offsets"][0]),
           whole_number(file, name, "data_offsets", entry["data_offsets"][1]), name};
  if (range.end - range.begin != bytes) {
    refuse(file, name,
           fmt::format("has {} bytes (data_offsets [{}, {}]), and {} of {} needs {}", range.end - range.begin,
                       range.begin, range.end, tensor.shape.str(), tensor.type, bytes));
  }
  return tensor;
}

/// The data must be the tensors, one after another.
void require_gapless(const MappedFile& file, std::vector<Range> ranges, std::int64_t data_bytes) {
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  std::int64_t end = 0;
  for (const Range& range : ranges) {
    if (range.begin != end) {
      refuse(file, range.name,
             fmt::format("begins at byte {} of the data, and the one before it ends at {}: {}", range.begin, end,
                         range.begin < end ? "they overlap" : "there is a hole"));
    }
    end = range.end;
  }
  if (end == data_bytes) return;
  refuse(file, fmt::format("{}: its tensors need {} bytes of data and {} are there",
                           end > data_bytes ? "is cut off" : "is longer than it should be", end, data_bytes));
}

}  // namespace

std::int64_t safetensors_type_bytes(const std::string& type) {
  for (const auto& [name, bytes] : kTypes) {
    if (type == name) return bytes;
  }
  return 0;
}

SafetensorsHeader parse_safetensors_header(const MappedFile& file) {
  const std::string_view text = header_text(file);
  const json parsed = parse_strictly(file, text);
  const std::int64_t data_begin = 8 + static_cast<std::int64_t>(text.size());
  SafetensorsHeader header;
  std::vector<Range> ranges;
  for (const auto& [name, entry] : parsed.items()) {
    if (name == "__metadata__") {
      if (!entry.is_object()) refuse(file, "its __metadata__ is no object");
      for (const auto& [key, value] : entry.items()) {
        if (value.is_string()) header.metadata[key] = value.get<std::string>();
      }
      continue;
    }
    Range range;
    StoredTensor tensor = parse_tensor(file, name, entry, range);
    tensor.offset = data_begin + range.begin;
    header.tensors.emplace(name, std::move(tensor));
    ranges.push_back(std::move(range));
  }
  require_gapless(file, std::move(ranges), file.size() - data_begin);
  return header;
}

std::map<std::string, std::string> parse_safetensors_index(const MappedFile& file) {
  const json parsed = parse_strictly(file, file.text());
  if (!parsed.contains("weight_map") || !parsed["weight_map"].is_object()) refuse(file, "has no object 'weight_map'");
  std::map<std::string, std::string> files;
  for (const auto& [name, shard] : parsed["weight_map"].items()) {
    // A name with a path in it could lead anywhere.
    if (!shard.is_string() || shard.get<std::string>().empty() ||
        shard.get<std::string>().find('/') != std::string::npos) {
      refuse(file, name,
             fmt::format("is said to be in {}, where the name of a file in the same folder belongs", shard.dump()));
    }
    files[name] = shard.get<std::string>();
  }
  return files;
}

}  // namespace annulus
