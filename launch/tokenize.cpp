#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "launch/command.h"
#include "runtime/core/error.h"
#include "runtime/training/tokenize_files.h"
#include "runtime/training/tokenizer.h"

namespace annulus {
namespace {

struct Options {
  std::string output;
  std::vector<std::string> texts;
  std::string kind = "bytes";
  std::string model;
  std::int64_t vocabulary = 0;
  std::int64_t seed = 1234;
  bool replace = false;
};

Options parse(Arguments arguments) {
  Options options;
  CommandLine line(
      "tokenize",
      "Makes a token file of text files, each followed by the end of text (docs/token-file.md). With --vocabulary, a "
      "SentencePiece model is trained on the same text first.");
  line.positional("OUTPUT", options.output, "The token file to write");
  line.option("--text", options.texts, "Text files, by path or glob (* ? [] **); may be repeated");
  line.option("--tokenizer", options.kind, "bytes (257 tokens) or sentencepiece");
  line.option("--model", options.model,
              "sentencepiece: the model's file. Default with --vocabulary: OUTPUT with .model");
  line.option("--vocabulary", options.vocabulary, "sentencepiece: train a model of so many tokens");
  line.option("--seed", options.seed, "sentencepiece: which lines are taken, where the text is too much to train on");
  line.flag("--replace", options.replace, "Replace files that are there already");
  line.parse(arguments);
  return options;
}

/// All that is wrong with the options, at once.
void check(const Options& options) {
  std::vector<std::string> problems;
  const bool pieces = options.kind == "sentencepiece";
  if (!pieces && options.kind != "bytes") {
    problems.push_back(fmt::format("--tokenizer={} is not known; use bytes or sentencepiece", options.kind));
  }
  if (options.texts.empty())
    problems.push_back("--text names no text to tokenize; give a path or a glob, as in --text 'texts/*.txt'");
  if (!pieces && (!options.model.empty() || options.vocabulary != 0)) {
    problems.push_back(
        "--model and --vocabulary belong to SentencePiece; add --tokenizer=sentencepiece, or leave them out");
  }
  if (pieces && options.model.empty() && options.vocabulary == 0) {
    problems.push_back("--tokenizer=sentencepiece has no model; give --model FILE, or train one with --vocabulary N");
  }
  if (options.seed < 0)
    problems.push_back(fmt::format("--seed={} is out of range; it must be at least 0", options.seed));
  if (!problems.empty()) throw ConfigError(problems);
}

std::unique_ptr<Tokenizer> make_tokenizer(const Options& options) {
  if (options.kind == "bytes") return make_byte_tokenizer();
  std::string model = options.model;
  if (model.empty()) model = std::filesystem::path(options.output).replace_extension(".model").string();
  if (options.vocabulary != 0) {
    const SentencePieceTraining training = {.globs = options.texts,
                                            .vocabulary_size = options.vocabulary,
                                            .seed = static_cast<std::uint64_t>(options.seed)};
    fmt::print("training a SentencePiece model of {} tokens\n", options.vocabulary);
    train_sentencepiece(training, model, options.replace ? Existing::replace : Existing::refuse);
    fmt::print("wrote {}\n", model);
  }
  return load_sentencepiece(model);
}

}  // namespace

int run_tokenize(Arguments arguments) {
  const Options options = parse(arguments);
  check(options);
  const Existing existing = options.replace ? Existing::replace : Existing::refuse;
  if (existing == Existing::refuse && std::filesystem::exists(options.output)) {  // before minutes of training
    throw ConfigError(fmt::format("{} is there already; give --replace, or another name", options.output));
  }
  const std::unique_ptr<Tokenizer> tokenizer = make_tokenizer(options);
  const TokenizeStatistics done = tokenize_files(options.texts, *tokenizer, options.output, existing);
  fmt::print("wrote {}: {} tokens of {} ({} bytes in {} files, {:.2f} bytes a token)\n", options.output, done.tokens,
             tokenizer->vocabulary_size(), done.bytes, done.files,
             static_cast<double>(done.bytes) / static_cast<double>(done.tokens));
  if (done.replaced > 0) fmt::print("note: {} parts of the text are no valid UTF-8 and became U+FFFD\n", done.replaced);
  return 0;
}

}  // namespace annulus
