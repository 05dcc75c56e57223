#include "runtime/training/token_file_writer.h"

#include <fmt/format.h>

#include <algorithm>

#include "runtime/core/error.h"
#include "runtime/training/tokenizer.h"

namespace annulus {
namespace {

std::span<const std::byte> bytes_of(const TokenFileHeader& header) { return std::as_bytes(std::span(&header, 1)); }

TokenFileHeader header_of(const Tokenizer& tokenizer) {
  TokenFileHeader header;
  header.magic = kTokenFileMagic;
  header.version = kTokenFileVersion;
  header.vocabulary_size = static_cast<std::uint64_t>(tokenizer.vocabulary_size());
  header.element_bytes = header.vocabulary_size <= 65536 ? 2 : 4;
  header.end_of_text = static_cast<std::uint64_t>(tokenizer.end_of_text());
  header.tokenizer_fingerprint = tokenizer.fingerprint();
  const std::string name = tokenizer.name();
  std::copy_n(name.begin(), std::min(name.size(), header.tokenizer.size() - 1), header.tokenizer.begin());
  return header;
}

}  // namespace

TokenFileWriter::TokenFileWriter(const std::string& path, const Tokenizer& tokenizer, Existing existing)
    : header_(header_of(tokenizer)), file_(path, existing) {
  file_.write(bytes_of(header_));
}

void TokenFileWriter::append(std::span<const std::int32_t> ids) {
  for (const std::int32_t id : ids) {
    const auto bits = static_cast<std::uint32_t>(id);
    if (bits >= header_.vocabulary_size) {
      throw InternalError(
          fmt::format("a tokenizer with a vocabulary of {} gave the id {}", header_.vocabulary_size, id));
    }
    checksum_.add(bits);
  }
  if (header_.element_bytes == 2) {
    narrow_.assign(ids.begin(), ids.end());
    file_.write(std::as_bytes(std::span(narrow_)));
  } else {
    file_.write(std::as_bytes(ids));
  }
  header_.tokens += ids.size();
}

void TokenFileWriter::commit() {
  header_.checksum = checksum_.value();
  file_.rewrite(0, bytes_of(header_));
  file_.commit();
}

}  // namespace annulus
