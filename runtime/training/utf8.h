#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace annulus {

/// Appends `text` to `valid` with every ill-formed part (overlong, surrogate, beyond U+10FFFF, cut short) replaced by
/// U+FFFD, one for each maximal subpart as the Unicode Standard recommends (section 3.9, table 3-8). Returns how many
/// were replaced.
std::int64_t append_valid_utf8(std::string_view text, std::string& valid);

/// The largest cut of `text`, at most `limit`, that does not split a character; `limit` itself where bytes are no
/// UTF-8.
std::size_t character_boundary(std::string_view text, std::size_t limit);

}  // namespace annulus
