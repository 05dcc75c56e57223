#include "runtime/training/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <system_error>
#include <utility>

#include "runtime/core/error.h"

namespace annulus {
namespace {

[[noreturn]] void fail(const std::string& path, int code) {
  const std::string advice = code == ENOENT ? "check the path" : "check what the path is, and its permissions";
  throw ConfigError(fmt::format("{}: cannot be read: {}; {}", path, std::generic_category().message(code), advice));
}

}  // namespace

MappedFile::MappedFile(std::string path) : path_(std::move(path)) {
  const int descriptor = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail(path_, errno);
  struct stat status {};
  int problem = ::fstat(descriptor, &status) < 0 ? errno : S_ISDIR(status.st_mode) ? EISDIR : 0;
  if (problem == 0 && status.st_size > 0) {
    void* memory = ::mmap(nullptr, static_cast<std::size_t>(status.st_size), PROT_READ, MAP_SHARED, descriptor, 0);
    problem = memory == MAP_FAILED ? errno : 0;
    if (problem == 0) data_ = static_cast<const std::byte*>(memory);
  }
  ::close(descriptor);
  if (problem != 0) fail(path_, problem);
  size_ = status.st_size;
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), static_cast<std::size_t>(size_));
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

std::string_view MappedFile::text() const {
  return {reinterpret_cast<const char*>(data_), static_cast<std::size_t>(size_)};
}

std::string MappedFile::first_bytes() const {
  if (size_ == 0) return "nothing: it is empty";
  std::string hex, characters;
  for (char c : text().substr(0, 8)) {
    hex += fmt::format("{:02x} ", static_cast<unsigned char>(c));
    characters += std::isprint(static_cast<unsigned char>(c)) ? c : '.';
  }
  return fmt::format("{}\"{}\"", hex, characters);
}

}  // namespace annulus
