#include "collectives/shared_window.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <random>

#include "collectives/socket.h"
#include "runtime/core/random.h"

namespace annulus {
namespace {

constexpr std::int64_t kPage = 4096;

/// What the names of this host's windows begin with: containers and namespaces may share memory and yet be hosts of
/// their own.
std::string name_prefix() {
  char host[256] = {};
  gethostname(host, sizeof host - 1);
  return fmt::format("/annulus-{:016x}-", stream_id(host));
}

}  // namespace

std::int64_t SharedWindow::header_bytes(int ranks) {
  const auto bytes = static_cast<std::int64_t>(2 * sizeof(Counter)) * ranks;
  return (bytes + kPage - 1) / kPage * kPage;
}

std::int64_t SharedWindow::total_bytes(int ranks, std::int64_t slot_bytes) {
  return header_bytes(ranks) + ranks * kSlots * slot_bytes;
}

SharedWindow::SharedWindow(std::byte* memory, int ranks, std::int64_t slot_bytes)
    : memory_(memory),
      ranks_(ranks),
      slot_bytes_(slot_bytes),
      counters_(reinterpret_cast<Counter*>(memory)),
      slots_(memory + header_bytes(ranks)) {}

SharedWindow::~SharedWindow() { munmap(memory_, static_cast<std::size_t>(total_bytes(ranks_, slot_bytes_))); }

std::unique_ptr<SharedWindow> SharedWindow::map(int file, int ranks, std::int64_t slot_bytes) {
  const auto bytes = static_cast<std::size_t>(total_bytes(ranks, slot_bytes));
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (memory == MAP_FAILED) return nullptr;
  return std::unique_ptr<SharedWindow>(new SharedWindow(static_cast<std::byte*>(memory), ranks, slot_bytes));
}

std::unique_ptr<SharedWindow> SharedWindow::create(int ranks, std::int64_t slot_bytes, std::string& name) {
  std::random_device random;
  name = fmt::format("{}{:08x}{:08x}", name_prefix(), random(), random());
  const FileDescriptor file(shm_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600));
  if (!file.open()) return nullptr;
  // Takes the pages now: to run out of them at a later touch would kill the process.
  if (posix_fallocate(file.number(), 0, total_bytes(ranks, slot_bytes)) != 0) {
    unlink(name);
    return nullptr;
  }
  return map(file.number(), ranks, slot_bytes);
}

std::unique_ptr<SharedWindow> SharedWindow::open(const std::string& name, int ranks, std::int64_t slot_bytes) {
  if (!name.starts_with(name_prefix())) return nullptr;
  const FileDescriptor file(shm_open(name.c_str(), O_RDWR | O_CLOEXEC, 0));
  return file.open() ? map(file.number(), ranks, slot_bytes) : nullptr;
}

void SharedWindow::unlink(const std::string& name) { shm_unlink(name.c_str()); }

}  // namespace annulus
