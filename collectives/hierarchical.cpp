#include "collectives/hierarchical.h"

#include <deque>
#include <utility>
#include <vector>

#include "collectives/reduce.h"

namespace annulus {
namespace {

/// Up to this, an all-reduce has the fewest stages rather than the fewest bytes.
constexpr std::int64_t kSmallBytes = 4096;
constexpr int kTag = 32002;  // of messages, which only parts of an all-gather are

/// Messages as an operation.
class Messages final : public Operation {
 public:
  explicit Messages(std::unique_ptr<MessageExchange> exchange) : exchange_(std::move(exchange)) {}
  bool advance() override { return exchange_->test(); }
  Transport transport() const override { return Transport::messages; }

 private:
  const std::unique_ptr<MessageExchange> exchange_;
};

}  // namespace

struct Hierarchy::State {
  HierarchyParts parts;
  std::uint64_t started = 0, finished = 0;  // transfers
};

class Hierarchy::Stages final : public Operation {
 public:
  Stages(std::shared_ptr<State> state, const Request& request)
      : state_(std::move(state)), parts_(state_->parts), request_(request), number_(state_->started++) {
    switch (request.kind) {
      case CollectiveKind::all_reduce:
        plan_all_reduce();
        break;
      case CollectiveKind::all_gather:
        plan_all_gather();
        break;
      case CollectiveKind::reduce_scatter:
        plan_reduce_scatter();
        break;
      default:
        throw InternalError(describe(request) + " is not hierarchical");
    }
  }
  Stages(const Stages&) = delete;
  Stages& operator=(const Stages&) = delete;
  ~Stages() override {
    if (!scratch_.empty()) parts_.scratch->push_back(std::move(scratch_));
  }

  bool advance() override {
    if (number_ != state_->finished) return false;
    while (true) {
      if (current_ && !current_->advance()) return false;
      current_.reset();
      if (stages_.empty()) break;
      current_ = stages_.front()();
      stages_.pop_front();
    }
    ++state_->finished;
    return true;
  }
  Transport transport() const override { return Transport::hierarchical; }

 private:
  using Stage = std::function<std::unique_ptr<Operation>()>;

  void within(const Request& request) {
    stages_.emplace_back([this, request] { return parts_.within(request); });
  }
  void between(const Request& request) {
    stages_.emplace_back([this, request] { return parts_.between(request); });
  }

  Request part_of(CollectiveKind kind, const void* send, void* receive, std::int64_t count) const {
    return {kind, send, receive, count, request_.dtype, request_.reduction, 0};
  }

  /// Every rank reduces and sends its slice; what is left over, and what is short, goes whole.
  void plan_all_reduce() {
    const std::int64_t slice = request_.bytes() <= kSmallBytes ? 0 : request_.count / parts_.grid.ranks_per_host;
    const std::int64_t sliced = slice * parts_.grid.ranks_per_host, element = size_of(request_.dtype);
    std::byte* const receive = request_.receive_part(0);
    if (slice > 0) {
      std::byte* const own = receive + parts_.grid.place * slice * element;
      within(part_of(CollectiveKind::reduce_scatter, request_.send, own, slice));
      between(part_of(CollectiveKind::all_reduce, own, own, slice));
      within(part_of(CollectiveKind::all_gather, own, receive, slice));
    }
    if (sliced == request_.count) return;
    std::byte* const rest = receive + sliced * element;
    within(
        part_of(CollectiveKind::all_reduce, request_.send_part(0) + sliced * element, rest, request_.count - sliced));
    between(part_of(CollectiveKind::all_reduce, rest, rest, request_.count - sliced));
  }

  void plan_all_gather() {
    const auto [hosts, ranks, own_host, place] = parts_.grid;
    stages_.emplace_back([this] { return gather_between(); });
    for (int host = 0; host < hosts; ++host)
      within(part_of(CollectiveKind::all_gather, request_.receive_part(host * ranks + place),
                     request_.receive_part(host * ranks), request_.count));
  }

  /// The parts of this place's ranks, each to where it belongs.
  std::unique_ptr<Operation> gather_between() const {
    const auto [hosts, ranks, own_host, place] = parts_.grid;
    std::unique_ptr<MessageExchange> exchange = parts_.messages(request_);
    copy_bytes(request_.receive_part(own_host * ranks + place), request_.send, request_.bytes());
    for (int step = 1; step < hosts; ++step) {
      const int to = (own_host + step) % hosts, from = (own_host + hosts - step) % hosts;
      exchange->receive(request_.receive_part(from * ranks + place), request_.count, from, kTag);
      exchange->send(request_.send_part(0), request_.count, to, kTag);
    }
    return std::make_unique<Messages>(std::move(exchange));
  }

  void plan_reduce_scatter() {
    const auto [hosts, ranks, own_host, place] = parts_.grid;
    if (!parts_.scratch->empty()) {
      scratch_ = std::move(parts_.scratch->back());
      parts_.scratch->pop_back();
    }
    const auto needed = static_cast<std::size_t>(hosts * request_.bytes());
    if (scratch_.size() < needed) scratch_.resize(needed);
    for (int host = 0; host < hosts; ++host)
      within(part_of(CollectiveKind::reduce_scatter, request_.send_part(host * ranks),
                     scratch_.data() + host * request_.bytes(), request_.count));
    between(part_of(CollectiveKind::reduce_scatter, scratch_.data(), request_.receive, request_.count));
  }

  const std::shared_ptr<State> state_;
  const HierarchyParts& parts_;
  const Request request_;
  const std::uint64_t number_;
  std::deque<Stage> stages_;
  std::unique_ptr<Operation> current_;
  std::vector<std::byte> scratch_;
};

Hierarchy::Hierarchy(HierarchyParts parts) : state_(std::make_shared<State>()) { state_->parts = std::move(parts); }

bool Hierarchy::carries(CollectiveKind kind) {
  return kind == CollectiveKind::all_reduce || kind == CollectiveKind::all_gather ||
         kind == CollectiveKind::reduce_scatter;
}

std::unique_ptr<Operation> Hierarchy::start(const Request& request) {
  return std::make_unique<Stages>(state_, request);
}

}  // namespace annulus
