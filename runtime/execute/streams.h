#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/core/stream.h"

namespace annulus {

/// The streams of a device that takes orders: no call waits until the device has done what it is asked for. One thread
/// calls. Streams, events and words live as long as the device. Throws DeviceError.
class Streams {
 public:
  /// A place on a stream, and the time at which the device passed it.
  struct Event;
  /// A sequence of orders that can be given again.
  struct Graph;

  virtual ~Streams() = default;

  /// The stream on which the device computes.
  virtual Stream* main() = 0;
  /// One for transfers, which go before computation where the device must choose.
  virtual Stream* make_stream() = 0;

  virtual Event* make_event() = 0;
  /// Behind all that is on the stream. A later record of the same event moves it.
  virtual void record(Event* event, Stream* stream) = 0;
  /// What is put on the stream from now on waits until the event, as recorded last, has been passed.
  virtual void wait(Stream* stream, Event* event) = 0;
  /// Not while capturing.
  virtual bool passed(Event* event) = 0;
  /// Between two events that have been passed, outside of captures.
  virtual double seconds(Event* from, Event* to) = 0;

  /// Copies from the host; `from` may be reused at once.
  virtual void write(Stream* stream, std::byte* to, const void* from, std::int64_t bytes) = 0;
  virtual void fill(Stream* stream, std::byte* to, std::uint8_t value, std::int64_t bytes) = 0;
  /// For tests: the stream stands still.
  virtual void delay(Stream* stream, double seconds) = 0;

  /// `count` zeros in memory of the host that the device writes, and that any thread may read (std::atomic_ref).
  virtual std::uint64_t* make_words(int count) = 0;
  /// words[index] = words[0] + number; the host sees it at once.
  virtual void tell(Stream* stream, std::uint64_t* words, int index, std::uint64_t number) = 0;

  /// Between the two, orders are taken down instead of carried out, from the main stream and from those that wait for
  /// events of it; the main stream waits for all of these before the end.
  virtual void begin_capture() = 0;
  virtual Graph* end_capture() = 0;
  /// Ends a capture that cannot be completed. Does not throw.
  virtual void drop_capture() = 0;
  /// Gives the orders on the main stream.
  virtual void launch(Graph* graph) = 0;
  virtual void destroy(Graph* graph) = 0;

  /// What is asked for between the two bears this name in a profiler.
  virtual void begin_range(const char* name) = 0;
  virtual void end_range() = 0;
};

}  // namespace annulus
