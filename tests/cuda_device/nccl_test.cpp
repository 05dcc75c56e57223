// NCCL itself, one rank on one GPU.
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "collectives/nccl_communicator.h"
#include "collectives/thread_communicator.h"
#include "tests/cuda_device/gpu.h"

namespace annulus::testing {
namespace {

TEST(Nccl, ARankAloneGetsWhatItGives) {
  if (const std::string why = absence(); !why.empty()) GTEST_SKIP() << "no device: " << why;
  CudaDevice device({});
  const std::int64_t count = 1000, bytes = count * size_of(DType::f32);
  std::byte* memory = device.allocate(2 * bytes);
  std::vector<float> given(count), got(count);
  std::iota(given.begin(), given.end(), 1.0f);
  run_ranks(1, [&](Communicator&) {
    const ThreadWorld threads(1);
    const NcclWorld world = nccl_world(threads.communicator(0), nccl_library(0));
    Communicator& all = *world.communicator;
    const auto expect_given = [&](Communicator::Pending transfer, const char* what) {
      wait(std::move(transfer));
      device.copy_from_device(got.data(), memory + bytes, bytes);
      EXPECT_EQ(got, given) << what;
      device.fill(memory + bytes, 0, bytes);
    };
    device.copy_to_device(memory, given.data(), bytes);
    expect_given(all.all_reduce(memory, memory + bytes, count, DType::f32, Reduction::sum), "all_reduce");
    expect_given(all.all_gather(memory, memory + bytes, count, DType::f32), "all_gather");
    expect_given(all.reduce_scatter(memory, memory + bytes, count, DType::f32, Reduction::max), "reduce_scatter");
    expect_given(all.all_to_all(memory, memory + bytes, count, DType::f32), "all_to_all");
    expect_given(all.shift(memory, memory + bytes, count, DType::f32, 0), "shift");
  });
}

}  // namespace
}  // namespace annulus::testing
