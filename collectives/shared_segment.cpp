#include "collectives/shared_segment.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <random>
#include <string>

#include "runtime/core/host_memory.h"
#include "runtime/core/random.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // Linux 6.1; older C libraries do not name it
#endif

namespace annulus {
namespace {

constexpr std::int64_t kHugePage = std::int64_t{1} << 21;

std::string file_name(const SegmentName& name) { return fmt::format("annulus-{:016x}", name.nonce); }

std::string path_of(const SegmentName& name) { return fmt::format("/proc/{}/fd/{}", name.process, name.file); }

/// Whether the path is that of the file that is meant: numbers are given again, and may be another machine's.
bool leads_to(const SegmentName& name) {
  char target[128] = {};
  if (readlink(path_of(name).c_str(), target, sizeof target - 1) < 0) return false;
  return std::string(target).starts_with("/memfd:" + file_name(name));
}

}  // namespace

/// Processes with one host name that see each other under the same numbers.
std::uint64_t SharedSegment::this_host() {
  char host[256] = {};
  gethostname(host, sizeof host - 1);
  struct stat processes {};
  if (stat("/proc/self/ns/pid", &processes) != 0) processes.st_ino = 0;
  return stream_id(fmt::format("{} {}", host, processes.st_ino));
}

SharedSegment::SharedSegment(FileDescriptor file, const SegmentName& name) : file_(std::move(file)), name_(name) {}

SharedSegment::~SharedSegment() {
  if (data_ != nullptr) munmap(data_, static_cast<std::size_t>(name_.bytes));
}

/// At a multiple of huge pages, or there would be none.
bool SharedSegment::map() {
  const auto bytes = static_cast<std::size_t>(name_.bytes);
  void* reserved = mmap(nullptr, bytes + kHugePage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return false;
  auto* begin = static_cast<std::byte*>(reserved);
  const auto before = static_cast<std::size_t>(-reinterpret_cast<std::uintptr_t>(begin) % kHugePage);
  void* memory = mmap(begin + before, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file_.number(), 0);
  if (before > 0) munmap(begin, before);
  munmap(begin + before + bytes, kHugePage - before);
  if (memory == MAP_FAILED) return false;
  data_ = static_cast<std::byte*>(memory);
  return true;
}

std::unique_ptr<SharedSegment> SharedSegment::create(std::int64_t bytes) {
  constexpr std::int64_t kPage = 4096;
  if (bytes > available_memory_bytes()) return nullptr;  // the kernel would not refuse, but end processes
  std::random_device random;
  SegmentName name;
  name.host = this_host();
  name.nonce = (std::uint64_t{random()} << 32) | random();
  name.process = getpid();
  name.bytes = (bytes + kPage - 1) / kPage * kPage;
  FileDescriptor file(memfd_create(file_name(name).c_str(), MFD_CLOEXEC));
  if (!file.open() || ftruncate(file.number(), name.bytes) != 0) return nullptr;
  name.file = file.number();
  std::unique_ptr<SharedSegment> segment(new SharedSegment(std::move(file), name));
  if (!segment->map()) return nullptr;
  // Huge pages are a wish: what is not granted comes in small ones. The kernel makes them of ranges that have a page.
  const std::int64_t huge_bytes = name.bytes / kHugePage * kHugePage;
  for (std::int64_t at = 0; at < huge_bytes; at += kHugePage) segment->data_[at] = std::byte{0};
  if (huge_bytes > 0) madvise(segment->data_, static_cast<std::size_t>(huge_bytes), MADV_COLLAPSE);
  if (posix_fallocate(segment->file_.number(), 0, name.bytes) != 0) return nullptr;
  return segment;
}

std::unique_ptr<SharedSegment> SharedSegment::open(const SegmentName& name) {
  if (name.bytes == 0 || name.host != this_host() || !leads_to(name)) return nullptr;
  FileDescriptor file(::open(path_of(name).c_str(), O_RDWR | O_CLOEXEC));
  if (!file.open()) return nullptr;
  std::unique_ptr<SharedSegment> segment(new SharedSegment(std::move(file), name));
  if (!segment->map()) return nullptr;
  segment->withdraw();
  return segment;
}

}  // namespace annulus
