#pragma once

#include <memory>

#include "runtime/execute/streams.h"

struct CUstream_st;

namespace annulus {

/// Streams, events and graphs of one GPU. Captures are this thread's (cudaStreamCaptureModeThreadLocal): what other
/// threads ask of CUDA meanwhile, NCCL's among them, does not break them.
class CudaStreams final : public Streams {
 public:
  explicit CudaStreams(int ordinal);
  ~CudaStreams() override;

  CUstream_st* native_main() const;

  Stream* main() override;
  Stream* make_stream() override;
  Event* make_event() override;
  void record(Event* event, Stream* stream) override;
  void wait(Stream* stream, Event* event) override;
  bool passed(Event* event) override;
  double seconds(Event* from, Event* to) override;
  /// Through pinned memory: waits where so much is under way that none is left.
  void write(Stream* stream, std::byte* to, const void* from, std::int64_t bytes) override;
  void fill(Stream* stream, std::byte* to, std::uint8_t value, std::int64_t bytes) override;
  void delay(Stream* stream, double seconds) override;
  std::uint64_t* make_words(int count) override;
  void tell(Stream* stream, std::uint64_t* words, int index, std::uint64_t number) override;
  void begin_capture() override;
  Graph* end_capture() override;
  void drop_capture() override;
  void launch(Graph* graph) override;
  void destroy(Graph* graph) override;
  void begin_range(const char* name) override;
  void end_range() override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// words[index] = words[0] + number, in memory of the host that the device writes; and a kernel that takes time.
void launch_tell(std::uint64_t* words, int index, std::uint64_t number, CUstream_st* stream);
void launch_delay(double seconds, CUstream_st* stream);

}  // namespace annulus
