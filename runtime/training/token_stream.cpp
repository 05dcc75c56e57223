#include "runtime/training/token_stream.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "runtime/core/error.h"
#include "runtime/core/random.h"
#include "runtime/training/permutation.h"

namespace annulus {

TokenStream::TokenStream(TokenFile file, const TokenStreamOptions& options)
    : file_(std::move(file)), options_(options) {
  const std::int64_t length = options_.sequence_length;
  const double fraction = options_.validation_fraction;
  if (length < 1)
    throw ConfigError(fmt::format("sequence_length={} is less than 1; give the number of tokens", length));
  if (!(fraction >= 0 && fraction < 1)) {
    throw ConfigError(fmt::format("validation_fraction={} is not in [0, 1); 0.01 to 0.1 is usual", fraction));
  }
  const std::int64_t windows = (file_.size() - 1) / length;
  if (windows < 1) {
    const std::string remedy =
        file_.size() < 2 ? "" : fmt::format(", or sequence_length of at most {}", file_.size() - 1);
    throw ConfigError(
        fmt::format("{}: has {} tokens, and a sequence with sequence_length={} needs {} (its inputs and one more "
                    "target); use more text{}",
                    file_.path(), file_.size(), length, length + 1, remedy));
  }
  if (fraction > 0) validation_ = std::max<std::int64_t>(1, std::llround(fraction * static_cast<double>(windows)));
  training_ = windows - validation_;
  if (training_ < 1) {
    throw ConfigError(
        fmt::format("{}: has {} sequence(s) of sequence_length={}, and validation_fraction={} takes {} of them, "
                    "which leaves none to train on; use more text, shorter sequences or "
                    "validation_fraction=0",
                    file_.path(), windows, length, fraction, validation_));
  }
}

std::int64_t TokenStream::window_of(std::int64_t global_sequence) const {
  if (global_sequence < 0) throw InternalError(fmt::format("training sequence {} is asked for", global_sequence));
  const std::int64_t place = global_sequence % training_;
  if (options_.order == SequenceOrder::sequential) return place;
  const auto epoch = static_cast<std::uint64_t>(epoch_of(global_sequence));
  return Permutation(stream_key(options_.seed, "data order", epoch), training_)(place);
}

void TokenStream::read(std::int64_t global_sequence, std::span<std::int32_t> inputs,
                       std::span<std::int32_t> targets) const {
  read_window(window_of(global_sequence), inputs, targets);
}

void TokenStream::read_validation(std::int64_t index, std::span<std::int32_t> inputs,
                                  std::span<std::int32_t> targets) const {
  if (index < 0 || index >= validation_) {
    throw InternalError(fmt::format("validation sequence {} of {} is asked for", index, validation_));
  }
  read_window(training_ + index, inputs, targets);
}

void TokenStream::read_window(std::int64_t window, std::span<std::int32_t> inputs,
                              std::span<std::int32_t> targets) const {
  const auto length = static_cast<std::size_t>(options_.sequence_length);
  if (inputs.size() != length || targets.size() != length) {
    throw InternalError(fmt::format("{} inputs and {} targets are asked for, and a sequence has {}", inputs.size(),
                                    targets.size(), length));
  }
  file_.read(window * options_.sequence_length, inputs);
  file_.read(window * options_.sequence_length + 1, targets);
}

std::string TokenStream::describe() const {
  const TokenFileInfo& info = file_.info();
  nlohmann::ordered_json description = {
      {"file", file_.path()},
      {"tokens", info.tokens},
      {"tokenizer", info.tokenizer},
      {"vocabulary_size", info.vocabulary_size ? nlohmann::ordered_json(info.vocabulary_size) : nullptr},
      {"tokenizer_fingerprint", fmt::format("{:016x}", info.tokenizer_fingerprint)},
      {"checksum", info.checksum ? nlohmann::ordered_json(fmt::format("{:016x}", *info.checksum)) : nullptr},
      {"sequence_length", options_.sequence_length},
      {"order", options_.order == SequenceOrder::shuffled ? "shuffled" : "sequential"},
      {"seed", options_.seed},
      {"training_sequences", training_},
      {"validation_sequences", validation_},
      {"unused_tokens", info.tokens - 1 - (training_ + validation_) * options_.sequence_length},
      {"meaning",
       "Windows of sequence_length tokens that do not overlap; the last validation_sequences are held out. Each epoch "
       "visits "
       "every training window once, in an order that depends on (seed, epoch) alone; epochs follow without a gap."},
  };
  return description.dump(2);
}

}  // namespace annulus
