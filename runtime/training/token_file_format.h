#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <span>

namespace annulus {

static_assert(std::endian::native == std::endian::little, "files are little-endian, and read as they lie in memory");

/// The header of a token file, as in docs/token-file.md.
struct TokenFileHeader {
  std::array<char, 8> magic{};
  std::uint32_t version = 0;
  std::uint32_t element_bytes = 0;
  std::uint64_t tokens = 0;
  std::uint64_t vocabulary_size = 0;
  std::uint64_t end_of_text = 0;
  std::uint64_t tokenizer_fingerprint = 0;
  std::uint64_t checksum = 0;
  std::uint64_t reserved = 0;
  std::array<char, 64> tokenizer{};
};
static_assert(sizeof(TokenFileHeader) == 128);

inline constexpr std::array<char, 8> kTokenFileMagic = {'A', 'N', 'N', 'T', 'O', 'K', 'E', 'N'};
inline constexpr std::uint32_t kTokenFileVersion = 1;

/// FNV-1a over ids instead of bytes: does not depend on the element size, and every changed id changes it.
class TokenChecksum {
 public:
  void add(std::uint32_t id) { value_ = (value_ ^ id) * 0x100000001B3; }
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0xCBF29CE484222325;
};

}  // namespace annulus
