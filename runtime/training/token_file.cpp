#include "runtime/training/token_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "runtime/core/error.h"
#include "runtime/training/token_file_format.h"

namespace annulus {
namespace {

constexpr std::int64_t kLlmcHeaderBytes = 256 * 4;

/// llm.c's formats, from its dev/data/data_common.py.
struct LlmcFormat {
  std::int32_t magic, version;
  int element_bytes;
};
constexpr LlmcFormat kLlmcFormats[] = {{20240520, 1, 2}, {20240801, 7, 4}};

template <class T>
T value_at(const MappedFile& file, std::int64_t offset) {
  T value;
  std::memcpy(&value, file.data() + offset, sizeof value);
  return value;
}

[[noreturn]] void refuse(const MappedFile& file, const std::string& problem) {
  throw ConfigError(file.path() + ": " + problem);
}

void require_header(const MappedFile& file, std::int64_t bytes) {
  if (file.size() >= bytes) return;
  refuse(file, fmt::format("is cut off: {} bytes are less than the header of {}; tokenize or copy it again",
                           file.size(), bytes));
}

TokenFileInfo own_info(const MappedFile& file) {
  require_header(file, sizeof(TokenFileHeader));
  const auto header = value_at<TokenFileHeader>(file, 0);
  if (header.version != kTokenFileVersion) {
    refuse(file, fmt::format("is a token file of version {}, and version {} is read here; tokenize the text again",
                             header.version, kTokenFileVersion));
  }
  const bool ids_fit = header.element_bytes == 2 || header.element_bytes == 4;
  if (!ids_fit || header.tokens > (std::uint64_t{1} << 48) || header.vocabulary_size > (std::uint64_t{1} << 31) ||
      header.end_of_text >= header.vocabulary_size) {
    refuse(
        file,
        fmt::format("has a damaged header: {} bytes an id (2 or 4), {} tokens, vocabulary {}, end of text {}; tokenize "
                    "the text again",
                    header.element_bytes, header.tokens, header.vocabulary_size, header.end_of_text));
  }
  TokenFileInfo info;
  info.tokens = static_cast<std::int64_t>(header.tokens);
  info.vocabulary_size = static_cast<std::int64_t>(header.vocabulary_size);
  info.end_of_text = static_cast<std::int32_t>(header.end_of_text);
  info.tokenizer.assign(header.tokenizer.data(), ::strnlen(header.tokenizer.data(), header.tokenizer.size()));
  info.tokenizer_fingerprint = header.tokenizer_fingerprint;
  info.checksum = header.checksum;
  info.element_bytes = static_cast<int>(header.element_bytes);
  return info;
}

TokenFileInfo llmc_info(const MappedFile& file, const LlmcFormat& format) {
  require_header(file, kLlmcHeaderBytes);
  const auto version = value_at<std::int32_t>(file, 4);
  const auto tokens = value_at<std::int32_t>(file, 8);
  if (version != format.version) {
    refuse(file,
           fmt::format("has llm.c's magic {} with version {}, and version {} is read here; write it again with llm.c's "
                       "dev/data scripts, or tokenize the text",
                       format.magic, version, format.version));
  }
  if (tokens < 0) refuse(file, fmt::format("has a damaged header: {} tokens; write it again", tokens));
  TokenFileInfo info;
  info.tokens = tokens;
  info.tokenizer = "llm.c";
  info.element_bytes = format.element_bytes;
  return info;
}

}  // namespace

TokenFile::TokenFile(const std::string& path) : file_(path) {
  const LlmcFormat* llmc = nullptr;
  if (file_.size() >= 4) {
    const auto* found = std::find_if(std::begin(kLlmcFormats), std::end(kLlmcFormats),
                                     [&](const LlmcFormat& f) { return f.magic == value_at<std::int32_t>(file_, 0); });
    if (found != std::end(kLlmcFormats)) llmc = found;
  }
  const bool own = file_.size() >= 8 && std::memcmp(file_.data(), kTokenFileMagic.data(), kTokenFileMagic.size()) == 0;
  if (!own && !llmc) {
    refuse(file_,
           fmt::format("is not a token file: it starts with {}, and a token file with \"ANNTOKEN\" or llm.c's magic "
                       "(20240520 or 20240801 as int32); make one from text with `annulus tokenize`",
                       file_.first_bytes()));
  }
  info_ = own ? own_info(file_) : llmc_info(file_, *llmc);
  offset_ = own ? static_cast<std::int64_t>(sizeof(TokenFileHeader)) : kLlmcHeaderBytes;
  const std::int64_t expected = offset_ + info_.tokens * info_.element_bytes;
  if (file_.size() != expected) {
    refuse(file_,
           fmt::format("is {}: its header says {} tokens of {} bytes, which makes {} bytes, and it has {}; tokenize or "
                       "copy it again",
                       file_.size() < expected ? "cut off" : "longer than it should be", info_.tokens,
                       info_.element_bytes, expected, file_.size()));
  }
}

void TokenFile::read(std::int64_t first, std::span<std::int32_t> ids) const {
  const auto count = static_cast<std::int64_t>(ids.size());
  if (first < 0 || first + count > size()) {
    throw InternalError(
        fmt::format("tokens [{}, {}) of {} are asked for, which has {}", first, first + count, path(), size()));
  }
  const std::byte* source = file_.data() + offset_ + first * info_.element_bytes;
  if (info_.element_bytes == 4) {
    std::memcpy(ids.data(), source, ids.size_bytes());
    return;
  }
  for (std::size_t i = 0; i < ids.size(); ++i) {
    std::uint16_t id;
    std::memcpy(&id, source + 2 * i, sizeof id);
    ids[i] = id;
  }
}

void TokenFile::check(std::int64_t vocabulary_size) const {
  if (info_.vocabulary_size > vocabulary_size) {
    refuse(file_, fmt::format("its tokenizer ({}) has a vocabulary of {}, and model.vocabulary={} is smaller; set "
                              "model.vocabulary to at least {}, or tokenize the text with another tokenizer",
                              info_.tokenizer, info_.vocabulary_size, vocabulary_size, info_.vocabulary_size));
  }
  constexpr std::int64_t kChunk = 1 << 16;
  std::vector<std::int32_t> ids(static_cast<std::size_t>(std::min(kChunk, size())));
  TokenChecksum checksum;
  for (std::int64_t first = 0; first < size(); first += kChunk) {
    const auto chunk = std::span(ids).first(static_cast<std::size_t>(std::min(kChunk, size() - first)));
    read(first, chunk);
    std::uint32_t largest = 0;
    for (const std::int32_t id : chunk) {
      largest = std::max(largest, static_cast<std::uint32_t>(id));
      checksum.add(static_cast<std::uint32_t>(id));
    }
    if (largest < vocabulary_size) continue;
    const auto bad = std::find_if(chunk.begin(), chunk.end(),
                                  [&](std::int32_t id) { return static_cast<std::uint32_t>(id) >= vocabulary_size; });
    refuse(file_, fmt::format("token {} has id {}, which is not below model.vocabulary={}; set it to at least the "
                              "tokenizer's, or tokenize the text with the tokenizer of the weights",
                              first + (bad - chunk.begin()), static_cast<std::uint32_t>(*bad), vocabulary_size));
  }
  if (info_.checksum && *info_.checksum != checksum.value()) {
    refuse(
        file_,
        fmt::format("is damaged: the checksum of its ids is {:016x}, and its header says {:016x}; tokenize or copy it "
                    "again",
                    checksum.value(), *info_.checksum));
  }
}

}  // namespace annulus
