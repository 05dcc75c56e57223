#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "runtime/training/mapped_file.h"
#include "runtime/training/safetensors.h"

namespace annulus {

/// Bytes of an element of a type of the format; 0 for an unknown one.
std::int64_t safetensors_type_bytes(const std::string& type);

struct SafetensorsHeader {
  std::map<std::string, StoredTensor, std::less<>> tensors;
  std::map<std::string, std::string> metadata;
};

/// Parses and checks the header of one file: its length, JSON, types, shapes; that every tensor has the bytes its shape
/// needs, and that the tensors follow each other without hole or overlap to the end of the file. Throws ConfigError.
SafetensorsHeader parse_safetensors_header(const MappedFile& file);

/// Parses the `weight_map` of an index: tensor to file name in the same folder. Throws ConfigError.
std::map<std::string, std::string> parse_safetensors_index(const MappedFile& file);

}  // namespace annulus
