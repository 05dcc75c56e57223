#include "runtime/training/utf8.h"

namespace annulus {
namespace {

struct Unit {
  std::size_t bytes;
  bool valid;
};

/// The character, or the maximal ill-formed subpart, at the start of a text that is not empty (Unicode 15, table 3-7).
Unit unit_at(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {1, true};
  if (lead < 0xC2 || lead > 0xF4) return {1, false};
  const std::size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  unsigned low = 0x80, high = 0xBF;  // of the second byte
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  for (std::size_t i = 1; i < length; ++i, low = 0x80, high = 0xBF) {
    if (i >= text.size() || byte(i) < low || byte(i) > high) return {i, false};
  }
  return {length, true};
}

}  // namespace

std::int64_t append_valid_utf8(std::string_view text, std::string& valid) {
  std::int64_t replaced = 0;
  std::size_t copied = 0;
  for (std::size_t at = 0; at < text.size();) {
    const Unit unit = unit_at(text.substr(at, 4));
    if (!unit.valid) {
      valid.append(text, copied, at - copied).append("\xEF\xBF\xBD");
      copied = at + unit.bytes;
      ++replaced;
    }
    at += unit.bytes;
  }
  valid.append(text, copied);
  return replaced;
}

std::size_t character_boundary(std::string_view text, std::size_t limit) {
  if (limit >= text.size()) return text.size();
  for (std::size_t cut = limit; cut > 0 && limit - cut < 4; --cut) {
    if ((static_cast<unsigned char>(text[cut]) & 0xC0) != 0x80) return cut;
  }
  return limit;
}

}  // namespace annulus
