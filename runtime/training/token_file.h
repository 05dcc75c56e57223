#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "runtime/training/mapped_file.h"

namespace annulus {

class Tokenizer;

/// Says which ids a token file holds.
struct TokenFileInfo {
  std::int64_t tokens = 0;
  std::int64_t vocabulary_size = 0;         ///< 0 where the file does not say (llm.c's)
  std::optional<std::int32_t> end_of_text;  ///< likewise
  std::string tokenizer;                    ///< its name; `llm.c` for llm.c's files
  std::uint64_t tokenizer_fingerprint = 0;  ///< 0 where the file does not say
  std::optional<std::uint64_t> checksum;    ///< of the ids, as in docs/token-file.md
  int element_bytes = 0;                    ///< 2 or 4
};

/// A memory-mapped file of token ids: ours (docs/token-file.md), or llm.c's `.bin` (dev/data/data_common.py: 256 int32
/// of header; magic 20240520 version 1 with 16-bit ids, magic 20240801 version 7 with 32-bit ids).
class TokenFile {
 public:
  /// Throws ConfigError: missing, truncated, longer than its header says, foreign (with the bytes it starts with).
  explicit TokenFile(const std::string& path);

  const std::string& path() const { return file_.path(); }
  const TokenFileInfo& info() const { return info_; }
  std::int64_t size() const { return info_.tokens; }

  /// Tokens [first, first + ids.size()). Throws InternalError beyond the end.
  void read(std::int64_t first, std::span<std::int32_t> ids) const;

  /// Reads the whole file once (some 5e8 tokens a second) and throws ConfigError where an id is not below
  /// `vocabulary_size`, the model's, where the tokenizer's vocabulary is larger than it, or where the checksum is
  /// wrong.
  void check(std::int64_t vocabulary_size) const;

 private:
  MappedFile file_;
  TokenFileInfo info_;
  std::int64_t offset_ = 0;  ///< of the first id, in bytes
};

}  // namespace annulus
