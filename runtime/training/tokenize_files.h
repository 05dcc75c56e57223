#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "runtime/training/atomic_file.h"

namespace annulus {

class Tokenizer;

struct TokenizeStatistics {
  std::int64_t files = 0;   ///< empty ones included, though they leave nothing in the output
  std::int64_t bytes = 0;   ///< of text
  std::int64_t tokens = 0;  ///< end-of-text tokens included
  std::int64_t replaced =
      0;  ///< ill-formed parts of UTF-8 that became U+FFFD; bytes are kept as they are by the byte tokenizer
};

/// Makes a token file of all text files that match `globs` (glob.h), in sorted order, each followed by the end of text.
/// A file over 64 KiB is encoded in pieces that end with a line (with a character, where lines are longer than that).
/// Throws ConfigError: a glob matches nothing, no text in all files, a file cannot be read, `output` cannot be written,
/// or exists and is to be kept; nothing is left behind then.
TokenizeStatistics tokenize_files(std::span<const std::string> globs, const Tokenizer& tokenizer,
                                  const std::string& output, Existing existing);

}  // namespace annulus
