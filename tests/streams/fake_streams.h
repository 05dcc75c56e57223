#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "runtime/execute/streams.h"

namespace annulus::testing {

/// Memory that an order touches.
struct Access {
  const void* begin = nullptr;
  std::int64_t bytes = 0;
  enum class How : std::uint8_t { reads, writes } how = How::reads;
};

/// What graphs and replays hold on to; see NcclFabric.
struct Resource {
  std::atomic<int> graphs{0}, replays{0};
};

/// Something that a stream is asked for. A run of it is called until it returns true; each replay makes a new one.
using OrderRun = std::function<bool()>;
struct OrderDraft {
  std::string name;
  std::function<OrderRun()> make;
  std::vector<Access> accesses;
  std::shared_ptr<Resource> resource = {};
};

/// An order that is done at once, as often as it is asked for.
OrderDraft at_once(std::string name, std::function<void()> what, std::vector<Access> accesses);

/// Stands in for a device's streams: orders are carried out by whoever asks whether an event has been passed, one at a
/// time, in an order that is drawn at random among all that streams and events allow. What is wrong on a GPU throws
/// InternalError here:
///  - two orders that touch the same bytes, one of them to write, and that nothing puts in order: found from the waits
///    alone, however the orders were drawn;
///  - whatever a capture does not allow: a stream that was not brought into it, or not joined; a question to the host;
///  - anything on a stream that a library has not yet put its own order on.
class FakeStreams final : public Streams {
 public:
  explicit FakeStreams(std::uint64_t seed);
  ~FakeStreams() override;

  Stream* main() override;
  Stream* make_stream() override;
  Event* make_event() override;
  void record(Event* event, Stream* stream) override;
  void wait(Stream* stream, Event* event) override;
  bool passed(Event* event) override;
  double seconds(Event* from, Event* to) override;
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

  void put(Stream* stream, OrderDraft draft);
  /// Between the two, the stream's order is with a library, and not yet on the stream.
  void begin_hand_over(Stream* stream);
  void end_hand_over(Stream* stream);
  /// Puts an order on the main stream and carries orders out until it is done.
  void finish(OrderDraft draft);

  /// From now on counts waits from 0, and leaves the one of this number out.
  void leave_out_wait(int number);
  int waits() const { return waits_; }
  /// Once this many orders have been carried out, no word is told any more: the device goes no further than the next
  /// collective, and does not begin it.
  void stop_after(std::int64_t orders) { stop_after_ = orders; }
  std::int64_t carried_out() const { return carried_out_; }
  int launches() const { return launches_; }

 private:
  struct Order;
  struct Queue;
  struct Recorded;
  struct Capture;
  using OrderPointer = std::shared_ptr<Order>;

  void put(Queue& queue, const OrderPointer& order);
  void admit(const OrderPointer& order);
  void check_order(const Order& order) const;
  void known_to_host(const OrderPointer& order);
  bool carry_out_one();
  void carry_out_some();

  std::mt19937_64 engine_;
  std::vector<std::unique_ptr<Queue>> queues_;
  std::vector<std::unique_ptr<Recorded>> events_;
  std::vector<std::unique_ptr<std::uint64_t[]>> words_;
  std::vector<OrderPointer> pending_;  // not yet carried out
  std::vector<OrderPointer> window_;   // of which the host does not know that they are over
  std::size_t next_index_ = 0;
  std::unique_ptr<Capture> capture_;
  int ranges_ = 0, waits_ = 0, launches_ = 0;
  std::optional<int> left_out_;
  std::optional<std::int64_t> stop_after_;
  std::int64_t carried_out_ = 0;
};

}  // namespace annulus::testing
