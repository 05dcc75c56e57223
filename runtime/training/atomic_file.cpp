#include "runtime/training/atomic_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>

#include "runtime/core/error.h"

namespace annulus {
namespace {

constexpr std::size_t kBufferBytes = std::size_t{1} << 20;

/// Writes all of `bytes` at `offset`, or says why not.
int write_all(int descriptor, std::span<const std::byte> bytes, off_t offset, bool positioned) {
  while (!bytes.empty()) {
    const ssize_t written = positioned ? ::pwrite(descriptor, bytes.data(), bytes.size(), offset)
                                       : ::write(descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    bytes = bytes.subspan(static_cast<std::size_t>(written));
    offset += written;
  }
  return 0;
}

}  // namespace

AtomicFile::AtomicFile(std::string path, Existing existing)
    : path_(std::move(path)), temporary_(fmt::format("{}.partial-{}", path_, ::getpid())) {
  std::error_code ignored;
  if (existing == Existing::refuse && std::filesystem::exists(path_, ignored)) {
    throw ConfigError(
        fmt::format("{}: exists already, and nothing is overwritten; remove it or give another path", path_));
  }
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor_ < 0) fail("created", errno);
  buffer_.reserve(kBufferBytes);
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::fail(const char* action, int code) const {
  const char* advice = code == ENOENT                     ? "create the folder first"
                       : code == ENOSPC || code == EDQUOT ? "free some space or give a path on another disk"
                                                          : "give a path in a folder that can be written";
  throw ConfigError(
      fmt::format("{}: cannot be {}: {}; {}", path_, action, std::generic_category().message(code), advice));
}

void AtomicFile::flush() {
  if (const int code = write_all(descriptor_, buffer_, 0, false)) fail("written", code);
  buffer_.clear();
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  if (buffer_.size() + bytes.size() > kBufferBytes) flush();
  if (bytes.size() < kBufferBytes) {
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  } else if (const int code = write_all(descriptor_, bytes, 0, false)) {
    fail("written", code);
  }
}

void AtomicFile::write(std::string_view text) { write(std::as_bytes(std::span(text))); }

void AtomicFile::rewrite(std::int64_t offset, std::span<const std::byte> bytes) {
  flush();
  if (const int code = write_all(descriptor_, bytes, offset, true)) fail("written", code);
}

void AtomicFile::commit() {
  flush();
  if (::fsync(descriptor_) < 0) fail("written", errno);
  if (std::rename(temporary_.c_str(), path_.c_str()) < 0) fail("given its name", errno);
  ::close(std::exchange(descriptor_, -1));
  // The new name itself lives in the folder: without this a power cut could lose it. Not every file system offers it.
  const std::filesystem::path folder = std::filesystem::path(path_).parent_path();
  const int descriptor = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  ::fsync(descriptor);
  ::close(descriptor);
}

void write_file_atomically(const std::string& path, std::string_view text) {
  AtomicFile file(path, Existing::replace);
  file.write(text);
  file.commit();
}

}  // namespace annulus
