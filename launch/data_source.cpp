#include "launch/data_source.h"

#include <algorithm>

namespace annulus {
namespace {

std::unique_ptr<TokenStream> open(const std::string& path, const RunConfig& config, DataSource::Check check,
                                  TokenStreamOptions options) {
  TokenFile file(path);
  if (check == DataSource::Check::every_token) file.check(config.model.vocabulary);
  options.sequence_length = config.batch.sequence_length;
  options.seed = static_cast<std::uint64_t>(config.training.seed);
  return std::make_unique<TokenStream>(std::move(file), options);
}

}  // namespace

DataSource::DataSource(const RunConfig& config, Check check) : batch_sequences_(config.batch.global_sequences) {
  if (config.data.file.empty())
    throw ConfigError("data.file names no token file to train on; make one with annulus tokenize");
  TokenStreamOptions options;
  options.order = config.data.shuffle ? SequenceOrder::shuffled : SequenceOrder::sequential;
  const bool own_validation = !config.data.validation_file.empty();
  options.validation_fraction = own_validation ? 0 : config.data.validation_fraction;
  training_ = open(config.data.file, config, check, options);
  if (own_validation) {
    validation_ = open(config.data.validation_file, config, check, {.order = SequenceOrder::sequential});
  }
}

SequenceReader DataSource::training(std::int64_t step) const {
  return [this, first = step * batch_sequences_](std::int64_t index, std::span<std::int32_t> ids,
                                                 std::span<std::int32_t> targets, std::span<double> weights) {
    training_->read(first + index, ids, targets);
    std::fill(weights.begin(), weights.end(), 1.0);
  };
}

SequenceReader DataSource::validation() const {
  return [this](std::int64_t index, std::span<std::int32_t> ids, std::span<std::int32_t> targets,
                std::span<double> weights) {
    const bool there = index < validation_sequences();
    const std::int64_t sequence = there ? index : 0;
    if (validation_) {
      validation_->read(sequence, ids, targets);
    } else {
      training_->read_validation(sequence, ids, targets);
    }
    std::fill(weights.begin(), weights.end(), there ? 1.0 : 0.0);
  };
}

std::int64_t DataSource::validation_sequences() const {
  return validation_ ? validation_->training_sequences() : training_->validation_sequences();
}

std::string DataSource::describe() const {
  return "{\"training\": " + training_->describe() +
         (validation_ ? ", \"validation\": " + validation_->describe() : "") + "}\n";
}

}  // namespace annulus
