#include "runtime/cuda/requirements.h"

#include <gtest/gtest.h>

namespace annulus {
namespace {

TEST(CudaRequirements, EachLackIsNamedWithItsRemedy) {
  const auto why = [](CudaMachine machine, int ordinal) { return missing_device(machine, ordinal).value_or(""); };
  EXPECT_EQ(why({13000, 13000, 8}, 7), "");
  EXPECT_EQ(why({13010, 13000, 1}, 0), "");
  EXPECT_EQ(why({13000, 13010, 1}, 0), "");  // a minor version newer than the driver's is compatible
  EXPECT_EQ(why({0, 13000, 0}, 0),
            "no GPU: the NVIDIA driver (libcuda.so.1) is not there; install it, or use device.kind=cpu");
  EXPECT_EQ(why({12080, 13000, 2}, 0),
            "the driver runs CUDA up to 12.8, and this build needs 13.0; install a newer driver, or build with 12.8");
  EXPECT_EQ(why({13000, 13000, 0}, 0),
            "no GPU is visible to this process; look at CUDA_VISIBLE_DEVICES, or use device.kind=cpu");
  EXPECT_EQ(why({13000, 13000, 2}, 2), "GPU 2 is asked for, and 2 are visible on this host; start 2 ranks on it");
  EXPECT_EQ(why({13000, 13000, 1}, 1), "GPU 1 is asked for, and 1 is visible on this host; start 1 rank on it");
}

TEST(CudaRequirements, OldGpusAndFullOnes) {
  EXPECT_FALSE(unusable_device("H200", 90));
  EXPECT_FALSE(unusable_device("A100", 80));
  EXPECT_EQ(unusable_device("V100", 70),
            "V100 has compute capability 7.0, and this build's kernels need 8.0; use a newer GPU, or device.kind=cpu");
  EXPECT_EQ(too_little_memory(std::int64_t{3} << 30, std::int64_t{1} << 30, std::int64_t{2} << 30),
            "cannot allocate 3221225472 bytes (3.00 GiB): 1.00 of the GPU's 2.00 GiB are free; use smaller "
            "micro-batches, more ranks, or end what else uses the GPU");
}

}  // namespace
}  // namespace annulus
