#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "launch/run_config.h"
#include "model/batch.h"
#include "runtime/training/token_stream.h"

namespace annulus {

/// The sequences of a run: of every step, and those to evaluate on. The same whatever the mesh.
class DataSource {
 public:
  /// Whether the token files are read through once and their ids checked; one rank of a host is enough.
  enum class Check : std::uint8_t { headers, every_token };

  /// Throws ConfigError: files missing, foreign or damaged, token ids beyond the vocabulary, fewer tokens than a
  /// sequence needs.
  DataSource(const RunConfig& config, Check check);

  /// Sequence i of the global batch of step `step` (from 0); every token's loss has weight 1.
  SequenceReader training(std::int64_t step) const;
  /// Evaluation sequence i; those beyond the last have weight 0.
  SequenceReader validation() const;
  std::int64_t validation_sequences() const;

  /// JSON for the run folder: the files and how they are cut.
  std::string describe() const;

 private:
  std::int64_t batch_sequences_;
  std::unique_ptr<TokenStream> training_;
  std::unique_ptr<TokenStream> validation_;  ///< of a file of its own, or null
};

}  // namespace annulus
