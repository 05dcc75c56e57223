#include <fmt/format.h>

#include "runtime/core/error.h"
#include "runtime/core/random.h"
#include "runtime/training/tokenizer.h"

namespace annulus {
namespace {

class ByteTokenizer final : public Tokenizer {
 public:
  std::int64_t vocabulary_size() const override { return 257; }
  std::int32_t end_of_text() const override { return 256; }
  TextKind text_kind() const override { return TextKind::any_bytes; }
  std::string name() const override { return "bytes"; }
  std::uint64_t fingerprint() const override { return stream_id(name()); }

  std::vector<std::int32_t> encode(std::string_view text) const override {
    std::vector<std::int32_t> ids(text.size());
    for (std::size_t i = 0; i < text.size(); ++i) ids[i] = static_cast<unsigned char>(text[i]);
    return ids;
  }

  std::string decode(std::span<const std::int32_t> ids) const override {
    std::string text;
    for (const std::int32_t id : ids) {
      if (id < 0 || id >= vocabulary_size()) {
        throw ConfigError(
            fmt::format("token id {} is not in the byte tokenizer's 0..256; use the tokenizer that made it", id));
      }
      if (id != end_of_text()) text += static_cast<char>(id);
    }
    return text;
  }
};

}  // namespace

std::unique_ptr<Tokenizer> make_byte_tokenizer() { return std::make_unique<ByteTokenizer>(); }

}  // namespace annulus
