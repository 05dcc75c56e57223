#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/training/atomic_file.h"
#include "runtime/training/token_file_format.h"

namespace annulus {

class Tokenizer;

/// Writes a token file (docs/token-file.md) piece by piece, with 2 bytes an id for vocabularies up to 65536 and 4
/// beyond; the file appears when it is complete.
class TokenFileWriter {
 public:
  /// Throws ConfigError where `path` cannot be written, or exists and is to be kept.
  TokenFileWriter(const std::string& path, const Tokenizer& tokenizer, Existing existing);
  /// Throws InternalError for an id that the tokenizer cannot have made.
  void append(std::span<const std::int32_t> ids);
  void commit();
  std::int64_t tokens() const { return static_cast<std::int64_t>(header_.tokens); }

 private:
  TokenFileHeader header_;
  TokenChecksum checksum_;
  AtomicFile file_;
  std::vector<std::uint16_t> narrow_;
};

}  // namespace annulus
