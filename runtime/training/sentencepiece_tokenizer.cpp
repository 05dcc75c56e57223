#include <fmt/format.h>
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <unordered_map>

#include "runtime/core/error.h"
#include "runtime/core/random.h"
#include "runtime/training/glob.h"
#include "runtime/training/mapped_file.h"
#include "runtime/training/tokenizer.h"
#include "runtime/training/utf8.h"

namespace annulus {
namespace {

class SentencePieceTokenizer final : public Tokenizer {
 public:
  explicit SentencePieceTokenizer(const std::string& path) : fingerprint_(0) {
    const MappedFile file(path);
    // An empty model, or bytes that happen to parse as one, load without complaint: they are told by their size.
    const bool loaded = processor_.LoadFromSerializedProto(std::string(file.text())).ok();
    if (!loaded || processor_.GetPieceSize() < 2) {
      throw ConfigError(
          fmt::format("{}: is not a SentencePiece model (it starts with {}); give the .model file that "
                      "`annulus tokenize` or spm_train wrote",
                      path, file.first_bytes()));
    }
    if (processor_.eos_id() < 0) {
      throw ConfigError(
          fmt::format("{}: has no end-of-sentence piece, and texts must be told apart; train the model "
                      "with an eos_id",
                      path));
    }
    fingerprint_ = stream_id(file.text());
  }

  std::int64_t vocabulary_size() const override { return processor_.GetPieceSize(); }
  std::int32_t end_of_text() const override { return processor_.eos_id(); }
  TextKind text_kind() const override { return TextKind::utf8; }
  std::string name() const override { return "sentencepiece"; }
  std::uint64_t fingerprint() const override { return fingerprint_; }

  std::vector<std::int32_t> encode(std::string_view text) const override {
    std::vector<int> ids;
    const auto status = processor_.Encode(std::string(text), &ids);
    if (!status.ok()) throw InternalError("SentencePiece cannot encode: " + status.ToString());
    return {ids.begin(), ids.end()};
  }

  std::string decode(std::span<const std::int32_t> ids) const override {
    for (const std::int32_t id : ids) {
      if (id >= 0 && id < vocabulary_size()) continue;
      throw ConfigError(
          fmt::format("token id {} is not below the SentencePiece model's vocabulary of {}; use the model "
                      "that made it",
                      id, vocabulary_size()));
    }
    std::string text;
    const auto status = processor_.Decode(std::vector<int>(ids.begin(), ids.end()), &text);
    if (!status.ok()) throw InternalError("SentencePiece cannot decode: " + status.ToString());
    return text;
  }

 private:
  sentencepiece::SentencePieceProcessor processor_;
  std::uint64_t fingerprint_;
};

/// The lines of all files, in order, as SentencePiece's trainer wants them. Of a corpus that is too large each line is
/// kept or left out by its own random number.
class Lines final : public sentencepiece::SentenceIterator {
 public:
  explicit Lines(const SentencePieceTraining& training) : key_(stream_key(training.seed, "tokenizer training")) {
    std::int64_t bytes = 0;
    for (const std::string& path : expand_globs(training.globs)) {
      files_.emplace_back(path);
      bytes += files_.back().size();
    }
    kept_ = bytes > training.largest_corpus_bytes
                ? static_cast<double>(training.largest_corpus_bytes) / static_cast<double>(bytes)
                : 1;
    Next();
  }

  bool done() const override { return line_.empty(); }
  const std::string& value() const override { return line_; }
  sentencepiece::util::Status status() const override { return {}; }

  void Next() override {
    line_.clear();
    while (line_.empty() && file_ < files_.size()) {
      std::string_view rest = files_[file_].text().substr(at_);
      if (rest.empty()) {
        ++file_;
        at_ = 0;
        continue;
      }
      std::size_t length = std::min(rest.find('\n'), rest.size());
      at_ += std::min(length, kLongest) + (length < rest.size() && length <= kLongest ? 1 : 0);
      if (length > kLongest) {
        const std::size_t cut = character_boundary(rest, kLongest);
        at_ -= kLongest - cut;
        length = cut;
      }
      const bool keep = uniform(static_cast<std::uint32_t>(random_bits(key_, number_++))) < kept_;
      if (keep) append_valid_utf8(rest.substr(0, length), line_);
    }
  }

 private:
  static constexpr std::size_t kLongest = 2048;  ///< bytes; the trainer drops what is longer than 4192
  PhiloxKey key_;
  double kept_ = 1;
  std::vector<MappedFile> files_;
  std::size_t file_ = 0, at_ = 0;
  std::uint64_t number_ = 0;
  std::string line_;
};

/// A status's message without the place in SentencePiece's sources that it begins with.
std::string reason_of(const sentencepiece::util::Status& status) {
  const std::string text = status.ToString();
  const auto place = text.find(")] ");
  const auto end = place == std::string::npos ? text.rfind("] ") : place + 1;
  return end == std::string::npos ? text : text.substr(end + 2);
}

}  // namespace

std::unique_ptr<Tokenizer> load_sentencepiece(const std::string& path) {
  return std::make_unique<SentencePieceTokenizer>(path);
}

void train_sentencepiece(const SentencePieceTraining& training, const std::string& path, Existing existing) {
  constexpr std::int64_t kLeast = 260;  // 256 bytes, <unk>, </s>, and something to learn
  if (training.vocabulary_size < kLeast || training.vocabulary_size > 1'000'000) {
    throw ConfigError(
        fmt::format("vocabulary_size={} cannot be a SentencePiece vocabulary: 256 bytes and 2 marks come first; "
                    "use {} to 1000000",
                    training.vocabulary_size, kLeast));
  }
  Lines lines(training);
  if (lines.done())
    throw ConfigError(fmt::format("'{}': the files hold no text to train a tokenizer on", training.globs[0]));
  AtomicFile file(path, existing);  // before minutes of work, so that a path that cannot be written is told at once
  const std::unordered_map<std::string, std::string> options = {
      {"model_type", "bpe"},
      {"vocab_size", std::to_string(training.vocabulary_size)},
      {"byte_fallback", "true"},
      {"normalization_rule_name", "identity"},
      {"remove_extra_whitespaces", "false"},
      {"add_dummy_prefix", "false"},
      {"allow_whitespace_only_pieces", "true"},
      {"split_digits", "true"},
      {"unk_id", "0"},
      {"eos_id", "1"},
      {"bos_id", "-1"},
      {"pad_id", "-1"},
      {"eos_piece", "<|endoftext|>"},
      {"num_threads", "1"},  // the model must not depend on the machine
      {"shuffle_input_sentence", "false"},
      {"minloglevel", "3"},
  };
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(options, &lines, &model);
  if (!status.ok()) {
    throw ConfigError(
        fmt::format("vocabulary_size={} does not fit the text of '{}': {}; use another size, or more text",
                    training.vocabulary_size, training.globs[0], reason_of(status)));
  }
  file.write(model);
  file.commit();
}

}  // namespace annulus
