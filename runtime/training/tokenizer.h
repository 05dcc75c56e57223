#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/training/atomic_file.h"

namespace annulus {

/// What a tokenizer can represent without loss.
enum class TextKind : std::uint8_t { any_bytes, utf8 };

/// Text to ids in [0, vocabulary_size()) and back. One object may be used by several threads.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  virtual std::int64_t vocabulary_size() const = 0;
  /// The id between texts; `encode` never gives it, whatever the text.
  virtual std::int32_t end_of_text() const = 0;
  virtual TextKind text_kind() const = 0;
  /// As recorded in token files, up to 63 bytes: `bytes`, `sentencepiece`.
  virtual std::string name() const = 0;
  /// A hash of all that decides which ids a text gets.
  virtual std::uint64_t fingerprint() const = 0;

  virtual std::vector<std::int32_t> encode(std::string_view text) const = 0;
  /// `end_of_text()` becomes nothing. Throws ConfigError for an id beyond the vocabulary.
  virtual std::string decode(std::span<const std::int32_t> ids) const = 0;
};

/// Every byte is an id, 256 is the end of text: 257 ids.
std::unique_ptr<Tokenizer> make_byte_tokenizer();

/// A SentencePiece model from its file. Throws ConfigError where it is missing, foreign, or has no `</s>` to end texts
/// with.
std::unique_ptr<Tokenizer> load_sentencepiece(const std::string& path);

/// How a SentencePiece model is trained: byte-pair encoding with byte fallback and without normalisation, so that any
/// UTF-8 comes back as it was (but for U+2581, which SentencePiece itself uses for spaces).
struct SentencePieceTraining {
  std::vector<std::string> globs;
  std::int64_t vocabulary_size = 0;
  std::uint64_t seed = 0;                                      ///< chooses the lines of a corpus that is too large
  std::int64_t largest_corpus_bytes = std::int64_t{64} << 20;  ///< about; SentencePiece holds all in memory
};

/// Trains on the files and writes the model: the same files, options and SentencePiece give the same model.
/// Throws ConfigError: nothing matches, a vocabulary too small or too large for the text, `path` exists and is to be
/// kept.
void train_sentencepiece(const SentencePieceTraining& training, const std::string& path, Existing existing);

}  // namespace annulus
