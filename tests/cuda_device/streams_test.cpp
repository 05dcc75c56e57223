// Streams, events, words and graphs of a GPU, and NCCL within a graph: what the executor's stand-ins for them believe.
#include "runtime/execute/streams.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <memory>
#include <numeric>
#include <thread>
#include <vector>

#include "collectives/nccl_communicator.h"
#include "collectives/thread_communicator.h"
#include "runtime/ops/elementwise.h"
#include "tests/cuda_device/gpu.h"

namespace annulus::testing {
namespace {

class StreamsOnGpu : public ::testing::Test {
 protected:
  static constexpr std::int64_t kCount = 1000, kBytes = kCount * static_cast<std::int64_t>(sizeof(float));

  void SetUp() override {
    if (const std::string why = absence(); !why.empty()) GTEST_SKIP() << "no device: " << why;
    gpu_ = std::make_unique<CudaDevice>(CudaOptions{});
    streams_ = gpu_->streams();
    memory_ = gpu_->allocate(2 * kBytes);
  }
  Tensor part(std::int64_t index) const { return {memory_ + index * kBytes, DType::f32, {kCount}}; }
  std::vector<float> floats(const Tensor& tensor) {
    std::vector<float> values(kCount);
    gpu_->copy_from_device(values.data(), tensor.data, kBytes);
    return values;
  }
  void accumulate(const Tensor& sum, const Tensor& x) {
    const std::array inputs{sum, x};
    gpu_->enqueue(streams_->main(), Accumulate(), {inputs, {&sum, 1}, nullptr, 0, &counters_});
  }
  void wait_for(Streams::Event* event) {
    while (!streams_->passed(event)) std::this_thread::yield();
  }
  void finish() {
    Streams::Event* end = streams_->make_event();
    streams_->record(end, streams_->main());
    wait_for(end);
  }
  static std::uint64_t load(std::uint64_t& word) { return std::atomic_ref(word).load(); }

  std::unique_ptr<CudaDevice> gpu_;
  Streams* streams_ = nullptr;
  std::byte* memory_ = nullptr;
  WorkCounters counters_;
};

TEST_F(StreamsOnGpu, AQuestionDisturbsNoLaunch) {
  Streams::Event *begin = streams_->make_event(), *end = streams_->make_event();
  std::uint64_t* const words = streams_->make_words(1);
  streams_->record(begin, streams_->main());
  streams_->delay(streams_->main(), 0.2);
  streams_->record(end, streams_->main());
  EXPECT_FALSE(streams_->passed(end));
  streams_->tell(streams_->main(), words, 0, 7);
  accumulate(part(0), part(1));
  wait_for(end);
  EXPECT_GE(streams_->seconds(begin, end), 0.19);
  finish();
  EXPECT_EQ(load(words[0]), 7u);
}

TEST_F(StreamsOnGpu, WordsAreSeenWhileTheStreamGoesOn) {
  std::uint64_t* const words = streams_->make_words(2);
  Streams::Event* end = streams_->make_event();
  streams_->tell(streams_->main(), words, 0, 10);
  streams_->tell(streams_->main(), words, 1, 3);
  streams_->delay(streams_->main(), 0.2);
  streams_->record(end, streams_->main());
  while (load(words[1]) == 0) std::this_thread::yield();
  EXPECT_FALSE(streams_->passed(end));
  EXPECT_EQ(load(words[1]), 13u);
  wait_for(end);
}

// More writes than there is pinned memory for at a time.
TEST_F(StreamsOnGpu, ReplaysAndWritesTakeTurns) {
  Stream* const lane = streams_->make_stream();
  Streams::Event *fork = streams_->make_event(), *join = streams_->make_event();
  std::uint64_t* const words = streams_->make_words(2);
  gpu_->fill(memory_, 0, 2 * kBytes);
  accumulate(part(0), part(1));  // the kernels are loaded before a capture, as the executor's first step does
  streams_->tell(streams_->main(), words, 1, 0);
  streams_->begin_capture();
  streams_->record(fork, streams_->main());
  streams_->wait(lane, fork);
  streams_->tell(lane, words, 1, 1);
  accumulate(part(0), part(1));
  streams_->record(join, lane);
  streams_->wait(streams_->main(), join);
  streams_->tell(streams_->main(), words, 0, 2);
  Streams::Graph* const graph = streams_->end_capture();
  constexpr int kReplays = 40;
  for (int i = 1; i <= kReplays; ++i) {
    const std::vector<float> x(kCount, static_cast<float>(i));
    streams_->write(streams_->main(), part(1).data, x.data(), kBytes);
    streams_->launch(graph);
  }
  finish();
  EXPECT_EQ(floats(part(0)), std::vector<float>(kCount, kReplays * (kReplays + 1) / 2));
  EXPECT_EQ(load(words[0]), 2u * kReplays);
  EXPECT_EQ(load(words[1]), 2u * (kReplays - 1) + 1);
  streams_->destroy(graph);
}

TEST_F(StreamsOnGpu, ADroppedCaptureLeavesTheStreamsAsTheyWere) {
  streams_->begin_capture();
  streams_->fill(streams_->main(), memory_, 1, kBytes);
  streams_->drop_capture();
  gpu_->fill(memory_, 0, kBytes);
  finish();
  EXPECT_EQ(floats(part(0)), std::vector<float>(kCount, 0));
}

TEST_F(StreamsOnGpu, NcclIsReplayed) {
  std::vector<float> given(kCount);
  std::iota(given.begin(), given.end(), 1.0f);
  run_ranks(1, [&](Communicator&) {
    const ThreadWorld threads(1);
    const NcclWorld world = nccl_world(threads.communicator(0), nccl_library(0));
    Stream* const lane = streams_->make_stream();
    Streams::Event *fork = streams_->make_event(), *join = streams_->make_event();
    const auto reduce = [&] {
      streams_->record(fork, streams_->main());
      streams_->wait(lane, fork);
      world.communicator->use_stream(lane);
      EXPECT_TRUE(
          world.communicator->all_reduce(part(0).data, part(1).data, kCount, DType::f32, Reduction::sum)->test());
      world.communicator->use_stream(nullptr);
      streams_->record(join, lane);
      streams_->wait(streams_->main(), join);
    };
    reduce();
    finish();
    streams_->begin_capture();
    reduce();
    Streams::Graph* const graph = streams_->end_capture();
    for (int i = 0; i < 3; ++i) {
      gpu_->fill(memory_, 0, 2 * kBytes);
      streams_->write(streams_->main(), part(0).data, given.data(), kBytes);
      streams_->launch(graph);
      finish();
      EXPECT_EQ(floats(part(1)), given);
    }
    streams_->destroy(graph);  // before the communicator that it holds
  });
}

}  // namespace
}  // namespace annulus::testing
