#include "runtime/training/tokenize_files.h"

#include <fmt/format.h>

#include <exception>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/core/error.h"
#include "runtime/training/glob.h"
#include "runtime/training/mapped_file.h"
#include "runtime/training/token_file_writer.h"
#include "runtime/training/tokenizer.h"
#include "runtime/training/utf8.h"

namespace annulus {
namespace {

/// Bytes of the next piece of a text. SentencePiece takes twice as long a byte for pieces that leave the cache.
std::size_t piece_bytes(std::string_view text) {
  constexpr std::size_t kLargest = std::size_t{1} << 16;
  if (text.size() <= kLargest) return text.size();
  const std::size_t newline = text.rfind('\n', kLargest - 1);
  return newline == std::string_view::npos ? character_boundary(text, kLargest) : newline + 1;
}

/// Encodes texts by all threads, and writes them in order.
class Encoder {
 public:
  Encoder(const Tokenizer& tokenizer, TokenFileWriter& writer) : tokenizer_(tokenizer), writer_(writer) {}

  void add(MappedFile file) {
    for (std::string_view text = file.text(); !text.empty();) {
      const std::size_t bytes = piece_bytes(text);
      pieces_.push_back({.text = text.substr(0, bytes), .last = bytes == text.size()});
      text.remove_prefix(bytes);
      if (pieces_.size() >= kPieces) flush();
    }
    files_.push_back(std::move(file));  // the pieces that wait are views of it
  }

  void flush() {
    std::exception_ptr problem;
#pragma omp parallel for schedule(dynamic)
    for (std::size_t i = 0; i < pieces_.size(); ++i) {
      try {
        encode(pieces_[i]);
      } catch (...) {
#pragma omp critical
        problem = std::current_exception();
      }
    }
    if (problem) std::rethrow_exception(problem);
    for (const Piece& piece : pieces_) {
      writer_.append(piece.ids);
      replaced_ += piece.replaced;
    }
    pieces_.clear();
    files_.clear();
  }

  std::int64_t replaced() const { return replaced_; }

 private:
  static constexpr std::size_t kPieces = 256;  ///< 16 MiB of text at most wait at a time

  struct Piece {
    std::string_view text;
    bool last;  ///< of its file
    std::vector<std::int32_t> ids = {};
    std::int64_t replaced = 0;
  };

  void encode(Piece& piece) const {
    std::string_view text = piece.text;
    std::string valid;
    if (tokenizer_.text_kind() == TextKind::utf8) {
      piece.replaced = append_valid_utf8(text, valid);
      text = valid;
    }
    piece.ids = tokenizer_.encode(text);
    if (piece.last) piece.ids.push_back(tokenizer_.end_of_text());
  }

  const Tokenizer& tokenizer_;
  TokenFileWriter& writer_;
  std::vector<MappedFile> files_;
  std::vector<Piece> pieces_;
  std::int64_t replaced_ = 0;
};

}  // namespace

TokenizeStatistics tokenize_files(std::span<const std::string> globs, const Tokenizer& tokenizer,
                                  const std::string& output, Existing existing) {
  const std::vector<std::string> files = expand_globs(globs);
  TokenFileWriter writer(output, tokenizer, existing);
  Encoder encoder(tokenizer, writer);
  TokenizeStatistics statistics;
  for (const std::string& path : files) {
    MappedFile file(path);
    statistics.files += 1;
    statistics.bytes += file.size();
    encoder.add(std::move(file));
  }
  encoder.flush();
  statistics.tokens = writer.tokens();
  statistics.replaced = encoder.replaced();
  if (statistics.tokens == 0) {
    throw ConfigError(fmt::format("'{}' matches {} files, and all of them are empty; give files with text", globs[0],
                                  statistics.files));
  }
  writer.commit();
  return statistics;
}

}  // namespace annulus
