#include "launch/memory.h"

#include <gtest/gtest.h>

#include "runtime/core/error.h"

namespace annulus {
namespace {

constexpr std::int64_t kGiB = std::int64_t{1} << 30;

TEST(Memory, AGpuHoldsArenasAndTheReserveOfEachOfItsRanks) {
  GpuRoom room{.gpu = "GPU 0 (H200)",
               .ranks = 2,
               .need_bytes = 6 * kGiB,
               .free_bytes = 8 * kGiB,
               .total_bytes = 10 * kGiB,
               .reserve_bytes = kGiB};
  EXPECT_EQ(memory_problem(room, "  weights 1 MB\n"), "");
  room.need_bytes += 1;
  EXPECT_EQ(memory_problem(room, "  weights 1 MB\n"),
            "the step needs 6.00 GiB of GPU 0 (H200) for 2 ranks: of its 10.00 GiB 8.00 are free, less 2.00 in reserve "
            "for NCCL and kernels; lower batch.micro_sequences or batch.sequence_length, use more ranks with a larger "
            "tp or cp, or end what else uses the GPU. A rank's arena:\n  weights 1 MB");
  room.reserve_bytes = 0;
  EXPECT_EQ(memory_problem(room, ""), "");
}

TEST(Memory, SizesAreRead) {
  EXPECT_EQ(parse_bytes("80GiB", "x"), 80 * kGiB);
  EXPECT_EQ(parse_bytes("1.5 GB", "x"), 1'500'000'000);
  EXPECT_EQ(parse_bytes("4096", "x"), 4096);
  for (const char* wrong : {"", "GiB", "80 gib", "-1GiB", "80GiBs", "1e30", "nan", "0"}) {
    try {
      parse_bytes(wrong, "--device-memory");
      ADD_FAILURE() << wrong;
    } catch (const ConfigError& error) {
      EXPECT_EQ(std::string(error.what()),
                "--device-memory=" + std::string(wrong) + " is no size; write it as in 80GiB, 80GB or 85899345920");
    }
  }
}

}  // namespace
}  // namespace annulus
