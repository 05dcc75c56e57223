#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace annulus {

/// A file seen as memory, read-only. Pages are read when they are touched, and shared by all ranks of a host.
class MappedFile {
 public:
  /// Throws ConfigError where the file is missing, unreadable or a folder.
  explicit MappedFile(std::string path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  const std::byte* data() const { return data_; }
  std::int64_t size() const { return size_; }
  const std::string& path() const { return path_; }
  std::string_view text() const;
  /// The first bytes, for messages about files that are not what they should be: `50 4b 03 04 "PK.."`.
  std::string first_bytes() const;

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  std::int64_t size_ = 0;
};

}  // namespace annulus
