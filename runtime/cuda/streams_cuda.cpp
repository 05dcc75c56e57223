#include <cuda_runtime.h>
#include <nvtx3/nvToolsExt.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "runtime/cuda/check.h"
#include "runtime/cuda/streams.h"

namespace annulus {
namespace {

constexpr std::size_t kSlots = 16;
constexpr std::int64_t kSlotBytes = std::int64_t{1} << 19;

// What the interface leaves undefined is CUDA's own.
cudaStream_t native(Stream* stream) { return reinterpret_cast<cudaStream_t>(stream); }
cudaEvent_t native(Streams::Event* event) { return reinterpret_cast<cudaEvent_t>(event); }
cudaGraphExec_t native(Streams::Graph* graph) { return reinterpret_cast<cudaGraphExec_t>(graph); }

/// Pinned memory of the host.
std::byte* pinned(std::size_t bytes) {
  void* memory = nullptr;
  // Portable and mapped: under unified addressing the device reaches it by the same address.
  check(cudaHostAlloc(&memory, bytes, cudaHostAllocPortable | cudaHostAllocMapped), "pinned memory of the host");
  std::memset(memory, 0, bytes);
  return static_cast<std::byte*>(memory);
}

}  // namespace

struct CudaStreams::State {
  /// Pinned memory on its way to the device.
  struct Slot {
    std::byte* memory = nullptr;
    cudaEvent_t copied = nullptr;
  };

  int ordinal = 0;
  int most_urgent = 0;
  std::vector<cudaStream_t> streams;  // the first computes
  std::vector<cudaEvent_t> events;
  std::vector<std::byte*> host_memory;
  std::array<Slot, kSlots> slots;
  std::size_t next_slot = 0;

  explicit State(int of_ordinal) : ordinal(of_ordinal) {
    select();
    int least_urgent = 0;
    check(cudaDeviceGetStreamPriorityRange(&least_urgent, &most_urgent), "the priorities of streams");
    make_stream(least_urgent);
    std::byte* memory = make_host_memory(kSlots * static_cast<std::size_t>(kSlotBytes));
    for (Slot& slot : slots) {
      slot = {memory, make_event(cudaEventDisableTiming)};
      memory += kSlotBytes;
    }
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    for (cudaStream_t stream : streams) cudaStreamSynchronize(stream);
    for (cudaEvent_t event : events) cudaEventDestroy(event);
    for (std::byte* memory : host_memory) cudaFreeHost(memory);
    for (cudaStream_t stream : streams) cudaStreamDestroy(stream);
  }

  /// The runtime's choice of a GPU is the thread's.
  void select() const { check(cudaSetDevice(ordinal), "the GPU"); }
  cudaStream_t make_stream(int priority) {
    cudaStream_t stream = nullptr;
    check(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, priority), "a stream");
    return streams.emplace_back(stream);
  }
  cudaEvent_t make_event(unsigned flags) {
    cudaEvent_t event = nullptr;
    check(cudaEventCreateWithFlags(&event, flags), "an event");
    return events.emplace_back(event);
  }
  std::byte* make_host_memory(std::size_t bytes) { return host_memory.emplace_back(pinned(bytes)); }
};

CudaStreams::CudaStreams(int ordinal) : state_(std::make_unique<State>(ordinal)) {}
CudaStreams::~CudaStreams() = default;

CUstream_st* CudaStreams::native_main() const { return state_->streams.front(); }
Stream* CudaStreams::main() { return reinterpret_cast<Stream*>(native_main()); }

Stream* CudaStreams::make_stream() {
  state_->select();
  return reinterpret_cast<Stream*>(state_->make_stream(state_->most_urgent));
}

Streams::Event* CudaStreams::make_event() {
  state_->select();
  return reinterpret_cast<Event*>(state_->make_event(cudaEventDefault));
}

void CudaStreams::record(Event* event, Stream* stream) {
  check(cudaEventRecord(native(event), native(stream)), "an event");
}

void CudaStreams::wait(Stream* stream, Event* event) {
  check(cudaStreamWaitEvent(native(stream), native(event), cudaEventWaitDefault), "a wait of a stream");
}

bool CudaStreams::passed(Event* event) {
  const cudaError_t state = cudaEventQuery(native(event));
  if (state == cudaErrorNotReady) {
    cudaGetLastError();  // which it would be until somebody takes it for a launch's
    return false;
  }
  check(state, "work on the GPU");
  return true;
}

double CudaStreams::seconds(Event* from, Event* to) {
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, native(from), native(to)), "the time between two events");
  return static_cast<double>(milliseconds) * 1e-3;
}

void CudaStreams::write(Stream* stream, std::byte* to, const void* from, std::int64_t bytes) {
  state_->select();
  for (std::int64_t done = 0; done < bytes; done += kSlotBytes) {
    State::Slot& slot = state_->slots[state_->next_slot++ % kSlots];
    check(cudaEventSynchronize(slot.copied), "a copy to the GPU");
    const auto size = static_cast<std::size_t>(std::min(kSlotBytes, bytes - done));
    std::memcpy(slot.memory, static_cast<const std::byte*>(from) + done, size);
    check(cudaMemcpyAsync(to + done, slot.memory, size, cudaMemcpyHostToDevice, native(stream)), "a copy to the GPU");
    check(cudaEventRecord(slot.copied, native(stream)), "a copy to the GPU");
  }
}

void CudaStreams::fill(Stream* stream, std::byte* to, std::uint8_t value, std::int64_t bytes) {
  state_->select();
  check(cudaMemsetAsync(to, value, static_cast<std::size_t>(bytes), native(stream)), "a fill");
}

void CudaStreams::delay(Stream* stream, double seconds) {
  state_->select();
  launch_delay(seconds, native(stream));
}

std::uint64_t* CudaStreams::make_words(int count) {
  state_->select();
  return reinterpret_cast<std::uint64_t*>(
      state_->make_host_memory(static_cast<std::size_t>(count) * sizeof(std::uint64_t)));
}

void CudaStreams::tell(Stream* stream, std::uint64_t* words, int index, std::uint64_t number) {
  state_->select();
  launch_tell(words, index, number, native(stream));
}

void CudaStreams::begin_capture() {
  state_->select();
  check(cudaStreamBeginCapture(native_main(), cudaStreamCaptureModeThreadLocal), "the begin of a capture");
}

Streams::Graph* CudaStreams::end_capture() {
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(native_main(), &graph), "the end of a capture");
  cudaGraphExec_t executable = nullptr;
  // Collectives keep the priority of the stream they were taken down from.
  const cudaError_t code = cudaGraphInstantiate(&executable, graph, cudaGraphInstantiateFlagUseNodePriority);
  cudaGraphDestroy(graph);
  check(code, "a graph");
  // Its memory on the device is claimed now, not in the first step that launches it.
  check(cudaGraphUpload(executable, native_main()), "a graph's upload");
  return reinterpret_cast<Graph*>(executable);
}

void CudaStreams::drop_capture() {
  cudaGraph_t graph = nullptr;
  cudaStreamEndCapture(native_main(), &graph);
  if (graph != nullptr) cudaGraphDestroy(graph);
  cudaGetLastError();  // that the capture was broken is known
}

void CudaStreams::launch(Graph* graph) {
  state_->select();
  check(cudaGraphLaunch(native(graph), native_main()), "the launch of a graph");
}

void CudaStreams::destroy(Graph* graph) { cudaGraphExecDestroy(native(graph)); }

void CudaStreams::begin_range(const char* name) { nvtxRangePushA(name); }
void CudaStreams::end_range() { nvtxRangePop(); }

}  // namespace annulus
