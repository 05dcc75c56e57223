#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "collectives/socket.h"

namespace annulus {

/// What another process needs to know to open a segment. Plain bytes, of whole 32-bit words; of no segment: all zero.
struct SegmentName {
  std::uint64_t host = 0;   ///< equal for processes that can open each other's
  std::uint64_t nonce = 0;  ///< tells the segment from whatever else has the same numbers
  std::int64_t process = 0, file = 0;
  std::int64_t bytes = 0;
};

/// Memory of one process that others of its host can map, zeroed; an unnamed file in memory, so that no file system's
/// room limits it, in huge pages where the kernel makes them (Linux 6.1).
class SharedSegment {
 public:
  /// Its pages already taken: to run out of them at a later touch would kill the process. Null where there is no room.
  static std::unique_ptr<SharedSegment> create(std::int64_t bytes);
  /// Null where the name is another host's, or the process is not allowed to.
  static std::unique_ptr<SharedSegment> open(const SegmentName& name);

  /// What names of this host have.
  static std::uint64_t this_host();

  SharedSegment(const SharedSegment&) = delete;
  SharedSegment& operator=(const SharedSegment&) = delete;
  ~SharedSegment();

  std::byte* data() const { return data_; }
  const SegmentName& name() const { return name_; }
  /// Nobody can open it any more; the memory goes with its last user.
  void withdraw() { file_.close(); }

 private:
  SharedSegment(FileDescriptor file, const SegmentName& name);
  bool map();

  FileDescriptor file_;
  SegmentName name_;
  std::byte* data_ = nullptr;
};

}  // namespace annulus
