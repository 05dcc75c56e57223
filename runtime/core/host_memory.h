#pragma once

#include <cstdint>
#include <string>

namespace annulus {

/// Bytes this process may still allocate: the least of the kernel's MemAvailable and what is left under every memory
/// limit (control groups version 1 and 2) that the process stands under; page cache that can be dropped counts as free.
/// `root` is where /proc and /sys are looked for. Throws DeviceError where nothing says how much there is.
std::int64_t available_memory_bytes(const std::string& root = "/");

/// The most memory this process has had resident so far, in bytes. Of pages that it shares with other processes now,
/// each one's equal share counts, so that peaks of processes add up to what they take together.
std::int64_t peak_resident_bytes();

}  // namespace annulus
