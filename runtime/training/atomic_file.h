#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace annulus {

enum class Existing : std::uint8_t { refuse, replace };

/// A file that appears whole or not at all: written under a temporary name beside `path`, and renamed by `commit`.
/// Every function throws ConfigError where the file system refuses (path, reason).
class AtomicFile {
 public:
  /// `existing` says what becomes of a file that is there already.
  AtomicFile(std::string path, Existing existing);
  /// Without a `commit` nothing is left behind.
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  /// Overwrites bytes that were written before.
  void rewrite(std::int64_t offset, std::span<const std::byte> bytes);
  /// Puts the bytes on disk, then gives the file its name.
  void commit();

  const std::string& path() const { return path_; }

 private:
  void flush();
  [[noreturn]] void fail(const char* action, int code) const;

  std::string path_, temporary_;
  int descriptor_ = -1;
  std::vector<std::byte> buffer_;
};

/// Writes `text` to `path`, whole or not at all, in place of a file that may be there. Throws ConfigError.
void write_file_atomically(const std::string& path, std::string_view text);

}  // namespace annulus
