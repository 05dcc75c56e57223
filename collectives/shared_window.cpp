#include "collectives/shared_window.h"

#include <algorithm>
#include <utility>

namespace annulus {
namespace {

constexpr std::int64_t kPage = 4096;

/// Up to this, a copy into a slot costs less than telling the others where the buffer is.
constexpr std::int64_t kSmallBytes = 8192;

}  // namespace

std::int64_t SharedWindow::header_bytes(int ranks) {
  const auto bytes = static_cast<std::int64_t>(2 * sizeof(Counter)) * ranks;
  return (bytes + kPage - 1) / kPage * kPage;
}

std::int64_t SharedWindow::total_bytes(int ranks, std::int64_t slot_bytes) {
  return header_bytes(ranks) + ranks * kSlots * slot_bytes;
}

SharedWindow::SharedWindow(std::shared_ptr<SharedSegment> segment, int ranks, std::int64_t slot_bytes)
    : segment_(std::move(segment)),
      ranks_(ranks),
      slot_bytes_(slot_bytes),
      counters_(reinterpret_cast<Counter*>(segment_->data())),
      slots_(segment_->data() + header_bytes(ranks)) {}

bool SharedWindow::may_fill(int rank, std::uint64_t round) const {
  if (filled(rank).load(std::memory_order_relaxed) != round) return false;
  for (int other = 0; other < ranks_; ++other)
    if (drained(other).load(std::memory_order_acquire) + kSlots <= round) return false;
  return true;
}

bool SharedWindow::all_filled(std::uint64_t round) const {
  for (int other = 0; other < ranks_; ++other)
    if (filled(other).load(std::memory_order_acquire) <= round) return false;
  return true;
}

struct WindowQueue::State {
  std::unique_ptr<SharedWindow> window;
  GroupMemory memory;
  int rank = 0;
  std::uint64_t started = 0, finished = 0;  // transfers
  std::uint64_t next_round = 0;
};

/// A transfer that waits until those before it are done: only then is it known with which round it begins.
class WindowQueue::Turn final : public Operation {
 public:
  Turn(std::shared_ptr<State> state, const Request& request)
      : state_(std::move(state)),
        request_(request),
        number_(state_->started++),
        tries_direct_(!state_->memory.memory->empty() &&
                      request.bytes() > std::min(kSmallBytes, state_->window->slot_bytes())) {}

  bool advance() override {
    if (number_ != state_->finished) return false;
    if (!operation_) begin();
    if (!operation_->advance()) return false;
    end();
    if (direct_ != nullptr && direct_->refused()) {
      begin_slots();
      return advance();
    }
    ++state_->finished;
    return true;
  }
  Transport transport() const override { return operation_->transport(); }

 private:
  void begin() {
    if (!tries_direct_) return begin_slots();
    auto direct =
        std::make_unique<DirectOperation>(*state_->window, state_->memory, request_, state_->rank, state_->next_round);
    direct_ = direct.get();
    operation_ = std::move(direct);
  }
  void begin_slots() {
    direct_ = nullptr;
    operation_ = through_slots(*state_->window, request_, state_->rank, state_->next_round);
  }
  void end() { state_->next_round += static_cast<std::uint64_t>(operation_->rounds()); }

  const std::shared_ptr<State> state_;
  const Request request_;
  const std::uint64_t number_;
  const bool tries_direct_;
  std::unique_ptr<WindowOperation> operation_;
  const DirectOperation* direct_ = nullptr;  // the operation, where it is one
};

WindowQueue::WindowQueue(std::unique_ptr<SharedWindow> window, GroupMemory memory, int rank)
    : state_(std::make_shared<State>()) {
  state_->window = std::move(window);
  state_->memory = std::move(memory);
  state_->rank = rank;
}

std::unique_ptr<Operation> WindowQueue::start(const Request& request) {
  return std::make_unique<Turn>(state_, request);
}

bool WindowQueue::has_memory() const { return !state_->memory.memory->empty(); }

}  // namespace annulus
