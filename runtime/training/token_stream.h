#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "runtime/training/token_file.h"

namespace annulus {

enum class SequenceOrder : std::uint8_t { shuffled, sequential };

struct TokenStreamOptions {
  std::int64_t sequence_length = 0;  ///< S
  std::uint64_t seed = 0;
  SequenceOrder order = SequenceOrder::shuffled;
  double validation_fraction = 0;  ///< of the sequences, taken from the end of the file; at least one where not 0
};

/// Training sequences as a function of their global number alone: the same whatever the mesh and whoever asks.
///
/// The file is cut into windows that do not overlap; window w has inputs [w S, w S + S) and as targets the next tokens,
/// [w S + 1, w S + S + 1), across ends of text; what remains at the end of the file is not used. The last windows are
/// held out for validation, in file order. An epoch visits every other window once: in file order, or in a permutation
/// that depends on (seed, epoch) alone. After the last sequence of an epoch follows the first of the next; a batch may
/// hold both. Sequence i of global batch k of B sequences has the global number k B + i.
class TokenStream {
 public:
  /// Throws ConfigError where the options are out of range, or the file holds too few sequences for them.
  TokenStream(TokenFile file, const TokenStreamOptions& options);

  const TokenFile& file() const { return file_; }
  const TokenStreamOptions& options() const { return options_; }
  /// Sequences of an epoch.
  std::int64_t training_sequences() const { return training_; }
  std::int64_t validation_sequences() const { return validation_; }

  std::int64_t epoch_of(std::int64_t global_sequence) const { return global_sequence / training_; }
  /// The window that training sequence `global_sequence` (from 0, without end) reads.
  std::int64_t window_of(std::int64_t global_sequence) const;

  /// A training sequence: `inputs` and `targets` have S elements each.
  void read(std::int64_t global_sequence, std::span<std::int32_t> inputs, std::span<std::int32_t> targets) const;
  /// Validation sequence `index` in [0, validation_sequences()): the same in every evaluation.
  void read_validation(std::int64_t index, std::span<std::int32_t> inputs, std::span<std::int32_t> targets) const;

  /// A JSON object for the run folder: the file, how it is cut, the order, and what they mean.
  std::string describe() const;

 private:
  void read_window(std::int64_t window, std::span<std::int32_t> inputs, std::span<std::int32_t> targets) const;

  TokenFile file_;
  TokenStreamOptions options_;
  std::int64_t training_ = 0, validation_ = 0;
};

}  // namespace annulus
