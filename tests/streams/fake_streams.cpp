#include "tests/streams/fake_streams.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <thread>

#include "runtime/core/error.h"
#include "runtime/execute/lanes.h"

namespace annulus::testing {
namespace {

constexpr const char* kWord = "a word";

bool conflict(const Access& one, const Access& other) {
  if (one.how == Access::How::reads && other.how == Access::How::reads) return false;
  const std::less<const char*> before;
  const auto *a = static_cast<const char*>(one.begin), *b = static_cast<const char*>(other.begin);
  return before(a, b + other.bytes) && before(b, a + one.bytes);
}

}  // namespace

OrderDraft at_once(std::string name, std::function<void()> what, std::vector<Access> accesses) {
  return {std::move(name),
          [does = std::move(what)]() -> OrderRun {
            return [does] {
              does();
              return true;
            };
          },
          std::move(accesses)};
}

struct FakeStreams::Order {
  OrderDraft draft;
  std::vector<OrderPointer> behind;
  OrderRun run = {};
  bool done = false, replayed = false;
  bool known = false;                     // to the host, to be over
  double at = 0;                          // when it was done
  std::size_t index = 0;                  // among those that the host did not know to be over, and since
  std::vector<std::uint64_t> after = {};  // by index: a bit for each order that comes before it

  bool is_after(const Order& other) const {
    const std::size_t word = other.index / 64;
    return word < after.size() && (after[word] >> other.index % 64 & 1) != 0;
  }
  void add_after(const Order& other) {
    after.resize(std::max({after.size(), other.after.size(), other.index / 64 + 1}));
    for (std::size_t i = 0; i < other.after.size(); ++i) after[i] |= other.after[i];
    after[other.index / 64] |= std::uint64_t{1} << other.index % 64;
  }
};

struct FakeStreams::Queue {
  OrderPointer last;
  std::vector<OrderPointer> waits;
  bool handed_over = false;  // a library has an order for it
};

struct FakeStreams::Recorded {
  OrderPointer order;
  bool captured = false;
};

/// The queues of streams that are in a capture, and all that was taken down.
struct FakeStreams::Capture {
  std::vector<std::pair<Stream*, std::unique_ptr<Queue>>> queues;
  std::vector<OrderPointer> orders;

  Queue* find(Stream* stream) const {
    for (const auto& [of, queue] : queues)
      if (of == stream) return queue.get();
    return nullptr;
  }
};

namespace {

template <class T, class U>
T* as(U* opaque) {
  return reinterpret_cast<T*>(opaque);
}

}  // namespace

FakeStreams::FakeStreams(std::uint64_t seed) : engine_(seed) { queues_.push_back(std::make_unique<Queue>()); }
FakeStreams::~FakeStreams() {
  // Orders know those before them: a long chain must not be let go from its end.
  for (auto& queue : queues_) *queue = {};
  for (auto& event : events_) *event = {};
  for (auto* orders : {&pending_, &window_})
    for (OrderPointer& order : *orders) order->behind.clear();
}

Stream* FakeStreams::main() { return as<Stream>(queues_.front().get()); }
Stream* FakeStreams::make_stream() { return as<Stream>(queues_.emplace_back(std::make_unique<Queue>()).get()); }
Streams::Event* FakeStreams::make_event() {
  return as<Event>(events_.emplace_back(std::make_unique<Recorded>()).get());
}

void FakeStreams::put(Stream* stream, OrderDraft draft) {
  auto order = std::make_shared<Order>(Order{std::move(draft), {}});
  if (as<Queue>(stream)->handed_over) throw InternalError(order->draft.name + " before a library's order");
  if (capture_) {
    Queue* queue = capture_->find(stream);
    if (queue == nullptr) throw InternalError(order->draft.name + " on a stream that is not in the capture");
    put(*queue, order);
    capture_->orders.push_back(order);
    return;
  }
  put(*as<Queue>(stream), order);
  admit(order);
}

void FakeStreams::put(Queue& queue, const OrderPointer& order) {
  order->behind = std::exchange(queue.waits, {});
  if (queue.last) order->behind.push_back(queue.last);
  queue.last = order;
}

void FakeStreams::admit(const OrderPointer& order) {
  if (window_.empty()) next_index_ = 0;
  order->index = next_index_++;
  for (const OrderPointer& before : order->behind)
    if (!before->known) order->add_after(*before);
  check_order(*order);
  order->run = order->draft.make();
  window_.push_back(order);
  pending_.push_back(order);
  for (auto n = engine_() % 3; n > 0; --n) carry_out_one();
}

void FakeStreams::check_order(const Order& order) const {
  for (const OrderPointer& other : window_) {
    if (order.is_after(*other)) continue;
    for (const Access& one : order.draft.accesses)
      for (const Access& two : other->draft.accesses)
        if (conflict(one, two))
          throw InternalError("nothing orders " + other->draft.name + " and " + order.draft.name +
                              ", which touch the same bytes");
  }
}

/// Whatever is put from now on comes behind it.
void FakeStreams::known_to_host(const OrderPointer& order) {
  if (order->known) return;
  std::erase_if(window_, [&](const OrderPointer& one) {
    one->known = one == order || order->is_after(*one);
    if (one->known && one->replayed && one->draft.resource) --one->draft.resource->replays;
    return one->known;
  });
}

bool FakeStreams::carry_out_one() {
  if (pending_.empty()) return false;
  const bool stopped = stop_after_ && carried_out_ >= *stop_after_;
  const std::size_t count = pending_.size(), first = engine_() % count;
  const bool backwards = engine_() % 2 == 0;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t at = (backwards ? first + count - i : first + i) % count;
    const OrderPointer order = pending_[at];
    if (stopped && order->draft.name == kWord) continue;
    std::erase_if(order->behind, [](const OrderPointer& other) { return other->done; });
    if (!order->behind.empty() || !order->run()) continue;
    order->done = true;
    order->at = now_seconds();
    order->run = {};
    pending_.erase(pending_.begin() + static_cast<std::ptrdiff_t>(at));
    ++carried_out_;
    return true;
  }
  return false;
}

void FakeStreams::carry_out_some() {
  for (auto n = 1 + engine_() % 16; n > 0; --n)
    if (!carry_out_one()) return;
}

void FakeStreams::record(Event* event, Stream* stream) {
  put(stream, at_once("an event", [] {}, {}));
  const Queue& queue = capture_ ? *capture_->find(stream) : *as<Queue>(stream);
  *as<Recorded>(event) = {queue.last, capture_ != nullptr};
}

void FakeStreams::wait(Stream* stream, Event* event) {
  const Recorded& recorded = *as<Recorded>(event);
  if (!recorded.order) throw InternalError("a wait for an event that was never recorded");
  if (recorded.captured != (capture_ != nullptr)) throw InternalError("a wait across the border of a capture");
  if (as<Queue>(stream)->handed_over) throw InternalError("a wait before a library's order");
  if (waits_++ == left_out_) return;
  Queue* queue = as<Queue>(stream);
  if (capture_) {
    queue = capture_->find(stream);
    if (queue == nullptr) queue = capture_->queues.emplace_back(stream, std::make_unique<Queue>()).second.get();
  }
  queue->waits.push_back(recorded.order);
}

bool FakeStreams::passed(Event* event) {
  if (capture_) throw InternalError("the host asks for an event within a capture");
  const Recorded recorded = *as<Recorded>(event);
  if (recorded.captured) throw InternalError("the host asks for an event of a capture");
  carry_out_some();
  if (recorded.order && !recorded.order->done) return false;
  if (recorded.order) known_to_host(recorded.order);
  return true;
}

double FakeStreams::seconds(Event* from, Event* to) {
  const Recorded &one = *as<Recorded>(from), &other = *as<Recorded>(to);
  if (one.captured || other.captured || !one.order->done || !other.order->done)
    throw InternalError("the time of an event that has not been passed");
  return other.order->at - one.order->at;
}

void FakeStreams::write(Stream* stream, std::byte* to, const void* from, std::int64_t bytes) {
  const auto* begin = static_cast<const std::byte*>(from);
  put(stream,
      at_once("a write",
              [to, data = std::vector<std::byte>(begin, begin + bytes)] { std::copy(data.begin(), data.end(), to); },
              {{to, bytes, Access::How::writes}}));
}

void FakeStreams::fill(Stream* stream, std::byte* to, std::uint8_t value, std::int64_t bytes) {
  put(stream, at_once("a fill", [=] { std::fill_n(to, bytes, static_cast<std::byte>(value)); },
                      {{to, bytes, Access::How::writes}}));
}

void FakeStreams::delay(Stream* stream, double seconds) {
  put(stream, {"a delay",
               [seconds]() -> OrderRun {
                 return [seconds, begin = 0.0]() mutable {
                   if (begin == 0) begin = now_seconds();
                   return now_seconds() - begin >= seconds;
                 };
               },
               {}});
}

std::uint64_t* FakeStreams::make_words(int count) {
  return words_.emplace_back(std::make_unique<std::uint64_t[]>(static_cast<std::size_t>(count))).get();
}

void FakeStreams::tell(Stream* stream, std::uint64_t* words, int index, std::uint64_t number) {
  put(stream,
      at_once(kWord,
              [=] {
                const std::uint64_t base = std::atomic_ref(words[0]).load();
                std::atomic_ref(words[index]).store(base + number);
              },
              {{words, sizeof(*words), Access::How::reads}, {words + index, sizeof(*words), Access::How::writes}}));
}

void FakeStreams::begin_capture() {
  if (capture_) throw InternalError("a capture within a capture");
  capture_ = std::make_unique<Capture>();
  capture_->queues.emplace_back(main(), std::make_unique<Queue>());
}

Streams::Graph* FakeStreams::end_capture() {
  std::unique_ptr<Capture> captured = std::exchange(capture_, nullptr);
  if (!captured) throw InternalError("the end of no capture");
  std::set<const Order*> loose;
  for (const auto& [stream, queue] : captured->queues)
    if (as<Queue>(stream)->handed_over) throw InternalError("the end of a capture before a library's order");
  for (const OrderPointer& order : captured->orders) loose.insert(order.get());
  for (const OrderPointer& order : captured->orders)
    for (const OrderPointer& before : order->behind) loose.erase(before.get());
  const Queue& queue = *captured->queues.front().second;
  loose.erase(queue.last.get());
  for (const OrderPointer& before : queue.waits) loose.erase(before.get());
  if (!loose.empty()) throw InternalError("the main stream does not wait for " + (*loose.begin())->draft.name);
  for (const OrderPointer& order : captured->orders)
    if (order->draft.resource) ++order->draft.resource->graphs;
  return as<Graph>(captured.release());
}

void FakeStreams::drop_capture() { capture_.reset(); }

void FakeStreams::launch(Graph* graph) {
  if (capture_) throw InternalError("a launch within a capture");
  ++launches_;
  const auto& orders = as<Capture>(graph)->orders;
  std::map<const Order*, OrderPointer> copies;
  std::vector<OrderPointer> ends;
  Queue& queue = *as<Queue>(main());
  std::vector<OrderPointer> before = std::exchange(queue.waits, {});
  if (queue.last) before.push_back(queue.last);
  for (const OrderPointer& order : orders)
    if (order->draft.resource) ++order->draft.resource->replays;
  for (const OrderPointer& order : orders) {
    auto copy = std::make_shared<Order>(Order{order->draft, before});
    copy->replayed = true;
    for (const OrderPointer& other : order->behind) copy->behind.push_back(copies.at(other.get()));
    copies[order.get()] = copy;
    ends.push_back(copy);
    admit(copy);
  }
  queue.waits.insert(queue.waits.end(), ends.begin(), ends.end());
  put(main(), at_once("the end of a graph", [] {}, {}));
}

void FakeStreams::destroy(Graph* graph) {
  const std::unique_ptr<Capture> captured(as<Capture>(graph));
  for (const OrderPointer& order : captured->orders)
    if (order->draft.resource) --order->draft.resource->graphs;
  for (const OrderPointer& order : captured->orders) order->behind.clear();
}

void FakeStreams::begin_range(const char*) { ++ranges_; }
void FakeStreams::end_range() {
  if (--ranges_ < 0) throw InternalError("the end of no range");
}

void FakeStreams::begin_hand_over(Stream* stream) { as<Queue>(stream)->handed_over = true; }
void FakeStreams::end_hand_over(Stream* stream) { as<Queue>(stream)->handed_over = false; }

void FakeStreams::finish(OrderDraft draft) {
  if (capture_) throw InternalError("the host waits within a capture");
  put(main(), std::move(draft));
  const OrderPointer order = queues_.front()->last;
  while (!order->done)
    if (!carry_out_one()) std::this_thread::yield();
  known_to_host(order);
}

void FakeStreams::leave_out_wait(int number) {
  waits_ = 0;
  left_out_ = number;
}

}  // namespace annulus::testing
