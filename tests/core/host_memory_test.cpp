#include "runtime/core/host_memory.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <vector>

#include "tests/training/support.h"

namespace annulus {
namespace {

using testing::expect_error;
using testing::TemporaryFolder;

constexpr std::int64_t kMebibyte = std::int64_t{1} << 20;

void write_meminfo(const TemporaryFolder& root, std::int64_t bytes) {
  root.write("proc/meminfo",
             "MemTotal: 99999999 kB\nMemFree: 1 kB\nMemAvailable: " + std::to_string(bytes / 1024) + " kB\n");
}

void write_group(const TemporaryFolder& root, const std::string& group, const std::string& limit, std::int64_t usage,
                 std::int64_t inactive) {
  root.write(group + "/memory.max", limit + "\n");
  root.write(group + "/memory.current", std::to_string(usage) + "\n");
  root.write(group + "/memory.stat", "anon 5\ninactive_file " + std::to_string(inactive) + "\nactive_file 7\n");
}

TEST(AvailableMemory, IsWhatTheKernelSaysWithoutLimits) {
  const TemporaryFolder root;
  write_meminfo(root, 800 * kMebibyte);
  EXPECT_EQ(available_memory_bytes(root / ""), 800 * kMebibyte);
}

TEST(AvailableMemory, TakesTheTightestGroupOfVersion2) {
  const TemporaryFolder root;
  write_meminfo(root, 8000 * kMebibyte);
  root.write("proc/self/cgroup", "0::/outer/inner\n");
  root.write("proc/self/mountinfo", "30 20 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n");
  write_group(root, "sys/fs/cgroup/outer", std::to_string(1000 * kMebibyte), 600 * kMebibyte, 100 * kMebibyte);
  write_group(root, "sys/fs/cgroup/outer/inner", "max", 300 * kMebibyte, 0);
  EXPECT_EQ(available_memory_bytes(root / ""), 500 * kMebibyte)
      << "the outer limit, with its page cache counted as free";
  write_group(root, "sys/fs/cgroup/outer/inner", std::to_string(400 * kMebibyte), 300 * kMebibyte, 0);
  EXPECT_EQ(available_memory_bytes(root / ""), 100 * kMebibyte);
  write_group(root, "sys/fs/cgroup/outer/inner", std::to_string(200 * kMebibyte), 300 * kMebibyte, 0);
  EXPECT_EQ(available_memory_bytes(root / ""), 0) << "over the limit already";
}

TEST(AvailableMemory, FindsTheGroupOfVersion1ThatAContainerSees) {
  const TemporaryFolder root;
  write_meminfo(root, 8000 * kMebibyte);
  root.write("proc/self/cgroup", "5:cpu,cpuacct:/docker/abc\n4:hugetlb,memory:/docker/abc\n0::/\n");
  root.write("proc/self/mountinfo", "32 31 0:29 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n");
  root.write("sys/fs/cgroup/memory/memory.limit_in_bytes", std::to_string(700 * kMebibyte));
  root.write("sys/fs/cgroup/memory/memory.usage_in_bytes", std::to_string(300 * kMebibyte));
  root.write("sys/fs/cgroup/memory/memory.stat",
             "cache 1\ntotal_inactive_file " + std::to_string(50 * kMebibyte) + "\n");
  EXPECT_EQ(available_memory_bytes(root / ""), 450 * kMebibyte);
  root.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712");
  EXPECT_EQ(available_memory_bytes(root / ""), 8000 * kMebibyte) << "no limit";
}

TEST(AvailableMemory, IsUnknownWhereNothingSaysIt) {
  const TemporaryFolder root;
  expect_error<DeviceError>([&] { available_memory_bytes(root / ""); }, {"proc/meminfo", "mount /proc"});
}

TEST(AvailableMemory, OfThisHostIsSane) {
  const std::int64_t physical = std::int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
  EXPECT_GT(available_memory_bytes(), 0);
  EXPECT_LE(available_memory_bytes(), physical);
}

TEST(PeakResident, GrowsByWhatIsTouched) {
  const std::int64_t before = peak_resident_bytes();
  EXPECT_GT(before, 0);
  std::vector<char> touched(static_cast<std::size_t>(before + 64 * kMebibyte), 1);
  EXPECT_GE(peak_resident_bytes(), before + 64 * kMebibyte) << touched.back();
}

}  // namespace
}  // namespace annulus
