#include "collectives/watchdog_role.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <sstream>
#include <utility>

#include "collectives/clock.h"

namespace annulus {
namespace {

enum FrameType : std::uint32_t { kHello = 1, kHeartbeat, kGoodbye, kFailure };

constexpr double kLeaveSeconds = 2;  // to wait for the answer to a goodbye

std::string silence_of(int rank, double seconds, const std::string& last) {
  return fmt::format(
      "rank {} has sent no heartbeat for {:.1f} s: its host is out of reach, or the process is stopped; it was {}",
      rank, seconds, last);
}

pollfd waiting_on(const Connection& connection) {
  return {connection.number(), static_cast<short>(connection.wants_to_write() ? POLLIN | POLLOUT : POLLIN), 0};
}

/// A socket a rank: lift the soft limit of open files where it is too low.
void allow_open_files(int count) {
  rlimit limit{};
  const auto wanted = static_cast<rlim_t>(count) + 256;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) return;
  limit.rlim_cur = std::min(wanted, limit.rlim_max);
  setrlimit(RLIMIT_NOFILE, &limit);
}

class Overseer final : public WatchdogRole {
 public:
  Overseer(int size, FileDescriptor listener, const Address& address, const WatchdogOptions& options)
      : listener_(std::move(listener)), token_(address.token), options_(options), states_(size), peers_(size) {
    allow_open_files(size);
  }

  std::vector<pollfd> sockets() const override {
    std::vector<pollfd> waited;
    if (!connected()) waited.push_back({listener_.number(), POLLIN, 0});
    for (const Connection& stranger : strangers_) waited.push_back(waiting_on(stranger));
    for (const Peer& peer : peers_) {
      if (peer.connection.open()) waited.push_back(waiting_on(peer.connection));
    }
    return waited;
  }

  std::optional<std::string> step(double now, const RankState& own) override {
    admit(now);
    const bool present = states_[0].present;
    states_[0] = own;
    states_[0].present = present;
    std::optional<std::string> failure;
    for (int rank = 1; rank < size() && !failure; ++rank) {
      if (peers_[rank].connection.open()) failure = listen_to(rank, now);
    }
    if (!failure) failure = silence(now);
    if (!failure && connected()) failure = hang(now);
    if (failure) {
      tell_all(kFailure, *failure);
    } else if (now - last_beat_ >= options_.heartbeat_seconds) {
      last_beat_ = now;
      tell_all(kHeartbeat, "");
    }
    return failure;
  }

  void forgive(double seconds) override {
    for (Peer& peer : peers_) peer.heard += seconds;
  }
  void report(const std::string& why) override { tell_all(kFailure, "rank 0 failed: " + why); }
  void say_goodbye(double) override { states_[0].present = false; }
  bool finished(double) const override {
    return std::none_of(states_.begin(), states_.end(), [](const RankState& state) { return state.present; });
  }
  bool connected() const override { return missing_ == 0; }

 private:
  struct Peer {
    Connection connection;
    double heard = 0;
  };

  int size() const { return static_cast<int>(states_.size()); }

  /// Takes connections in until each rank has shown the token.
  void admit(double now) {
    if (connected()) return;
    for (Connection stranger = accept_from(listener_); stranger.open(); stranger = accept_from(listener_)) {
      strangers_.push_back(std::move(stranger));
    }
    for (Connection& stranger : strangers_) {
      const std::optional<Frame> hello = stranger.next();
      if (!hello) {
        if (stranger.ended()) stranger.close();
        continue;
      }
      std::istringstream words(hello->payload);
      std::uint64_t token = 0;
      int rank = 0;
      const bool known = hello->type == kHello && (words >> token >> rank) && token == token_ && rank > 0 &&
                         rank < size() && !peers_[rank].connection.open();
      if (known) {
        peers_[rank] = {std::move(stranger), now};
        --missing_;
      }
      stranger.close();
    }
    std::erase_if(strangers_, [](const Connection& stranger) { return !stranger.open(); });
  }

  std::optional<std::string> listen_to(int rank, double now) {
    Peer& peer = peers_[rank];
    RankState& state = states_[rank];
    if (peer.connection.wants_to_write()) peer.connection.flush();
    while (const std::optional<Frame> frame = peer.connection.next()) {
      peer.heard = now;
      if (frame->type == kHeartbeat) {
        if (std::optional<RankState> told = decoded(frame->payload)) state = std::move(*told);
      } else if (frame->type == kFailure) {
        return fmt::format("rank {} failed: {}", rank, frame->payload);
      } else if (frame->type == kGoodbye) {
        state.present = false;
        peer.connection.close();
        return std::nullopt;
      }
    }
    if (peer.connection.ended()) {
      peer.connection.close();
      return fmt::format("rank {} died: its connection closed without a goodbye; it was {}", rank, describe(state));
    }
    return std::nullopt;
  }

  /// A host out of reach takes all of its ranks along: those that fell silent at about the same time are named
  /// together.
  std::optional<std::string> silence(double now) const {
    std::optional<std::string> text;
    for (int rank = 1; rank < size() && !text; ++rank) {
      const double seconds = now - peers_[rank].heard;
      if (!peers_[rank].connection.open() || seconds <= options_.silence_seconds) continue;
      text = silence_of(rank, seconds, describe(states_[rank]));
      for (int other = 1; other < size(); ++other) {
        const bool silent = now - peers_[other].heard > 0.75 * options_.silence_seconds;
        if (other != rank && peers_[other].connection.open() && silent)
          *text += fmt::format("; nor has rank {}", other);
      }
    }
    return text;
  }

  /// An operation is a hang when it is still past its deadline after everybody has told its state once more.
  std::optional<std::string> hang(double now) {
    // Whose overtime is longest changes with every heartbeat where several ranks hang: a suspect stays one.
    const int suspected = suspect_.first;
    const bool still =
        suspected >= 0 && states_[suspected].sequence == suspect_.second && is_overdue(states_[suspected]);
    if (!still) {
      const std::optional<int> overdue = overdue_rank(states_);
      suspect_ = overdue ? std::pair(*overdue, states_[*overdue].sequence) : std::pair(-1, std::uint64_t{0});
      suspected_ = now;
    }
    if (suspect_.first < 0 || now - suspected_ < 1.5 * options_.heartbeat_seconds) return std::nullopt;
    return explain_hang(states_, suspect_.first);
  }

  void tell_all(FrameType type, const std::string& text) {
    for (Peer& peer : peers_) {
      if (peer.connection.open()) peer.connection.send(type, text);
    }
  }

  FileDescriptor listener_;
  const std::uint64_t token_;
  const WatchdogOptions options_;
  std::vector<RankState> states_;
  std::vector<Peer> peers_;
  std::vector<Connection> strangers_;
  int missing_ = size() - 1;
  double last_beat_ = 0;
  std::pair<int, std::uint64_t> suspect_{-1, 0};
  double suspected_ = 0;
};

class Member final : public WatchdogRole {
 public:
  Member(int rank, const Address& address, const WatchdogOptions& options)
      : options_(options), to_overseer_(connect_to(address, options.connect_seconds)), heard_(steady_seconds()) {
    to_overseer_.send(kHello, fmt::format("{} {}", address.token, rank));
  }

  std::vector<pollfd> sockets() const override { return {waiting_on(to_overseer_)}; }

  std::optional<std::string> step(double now, const RankState& own) override {
    if (to_overseer_.wants_to_write()) to_overseer_.flush();
    while (std::optional<Frame> frame = to_overseer_.next()) {
      heard_ = now;
      if (frame->type == kFailure) return std::move(frame->payload);
    }
    if (left_ > 0) return std::nullopt;
    if (to_overseer_.ended()) return "rank 0 died: its connection closed without a goodbye";
    if (now - heard_ > options_.silence_seconds) return silence_of(0, now - heard_, "overseeing this job");
    if (now - last_beat_ >= options_.heartbeat_seconds) {
      last_beat_ = now;
      to_overseer_.send(kHeartbeat, encoded(own));
    }
    return std::nullopt;
  }

  void forgive(double seconds) override { heard_ += seconds; }
  void report(const std::string& why) override { to_overseer_.send(kFailure, why); }
  void say_goodbye(double now) override {
    left_ = now;
    to_overseer_.send(kGoodbye, "");
    to_overseer_.finish_sending();
  }
  bool finished(double now) const override { return to_overseer_.ended() || now - left_ > kLeaveSeconds; }
  bool connected() const override { return true; }

 private:
  const WatchdogOptions options_;
  Connection to_overseer_;
  double heard_;
  double last_beat_ = 0;
  double left_ = 0;  // when goodbye was said
};

}  // namespace

std::unique_ptr<WatchdogRole> make_overseer(int size, FileDescriptor listener, const Address& address,
                                            const WatchdogOptions& options) {
  return std::make_unique<Overseer>(size, std::move(listener), address, options);
}

std::unique_ptr<WatchdogRole> make_member(int rank, const Address& address, const WatchdogOptions& options) {
  return std::make_unique<Member>(rank, address, options);
}

}  // namespace annulus
