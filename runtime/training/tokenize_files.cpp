#include "runtime/training/tokenize_files.h"

#include <fmt/format.h>

#include "runtime/core/error.h"
#include "runtime/training/glob.h"
#include "runtime/training/mapped_file.h"
#include "runtime/training/token_file_writer.h"
#include "runtime/training/tokenizer.h"
#include "runtime/training/utf8.h"

namespace annulus {
namespace {

/// Bytes of the next piece of a text.
std::size_t piece_bytes(std::string_view text) {
  constexpr std::size_t kLargest = std::size_t{1} << 20;
  if (text.size() <= kLargest) return text.size();
  const std::size_t newline = text.rfind('\n', kLargest - 1);
  return newline == std::string_view::npos ? character_boundary(text, kLargest) : newline + 1;
}

}  // namespace

TokenizeStatistics tokenize_files(std::span<const std::string> globs, const Tokenizer& tokenizer,
                                  const std::string& output, Existing existing) {
  const std::vector<std::string> files = expand_globs(globs);
  TokenFileWriter writer(output, tokenizer, existing);
  TokenizeStatistics statistics;
  std::string valid;
  for (const std::string& path : files) {
    const MappedFile file(path);
    for (std::string_view text = file.text(); !text.empty();) {
      std::string_view piece = text.substr(0, piece_bytes(text));
      text.remove_prefix(piece.size());
      if (tokenizer.text_kind() == TextKind::utf8) {
        valid.clear();
        statistics.replaced += append_valid_utf8(piece, valid);
        piece = valid;
      }
      writer.append(tokenizer.encode(piece));
    }
    if (file.size() > 0) writer.append(std::vector{tokenizer.end_of_text()});
    statistics.files += 1;
    statistics.bytes += file.size();
  }
  statistics.tokens = writer.tokens();
  if (statistics.tokens == 0) {
    throw ConfigError(fmt::format("'{}' matches {} files, and all of them are empty; give files with text", globs[0],
                                  statistics.files));
  }
  writer.commit();
  return statistics;
}

}  // namespace annulus
