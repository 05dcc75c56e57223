#include "collectives/socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <random>
#include <sstream>

#include "runtime/core/error.h"

namespace annulus {
namespace {

struct FrameHead {
  std::uint32_t type;
  std::uint32_t bytes;
};
constexpr std::uint32_t kLargestFrame = 1 << 20;
constexpr double kHostSeconds = 5;  // to try one address of several

std::string reason() { return std::strerror(errno); }

sockaddr_in endpoint(in_addr_t host, int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = host;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  return address;
}

const sockaddr* generic(const sockaddr_in& address) { return reinterpret_cast<const sockaddr*>(&address); }

std::string text_of(const sockaddr_in& address) {
  char text[INET_ADDRSTRLEN] = {};
  inet_ntop(AF_INET, &address.sin_addr, text, sizeof text);
  return text;
}

/// The own address that packets to other networks would carry. Nothing is sent.
std::string default_route_address() {
  const FileDescriptor probe(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const sockaddr_in far = endpoint(inet_addr("192.0.2.1"), 9);  // an address of the documentation range
  sockaddr_in own{};
  socklen_t length = sizeof own;
  if (connect(probe.number(), generic(far), sizeof far) != 0) return {};
  if (getsockname(probe.number(), reinterpret_cast<sockaddr*>(&own), &length) != 0) return {};
  return text_of(own);
}

std::vector<std::string> own_addresses() {
  std::vector<std::string> hosts;
  const auto add = [&](const std::string& host) {
    if (!host.empty() && std::find(hosts.begin(), hosts.end(), host) == hosts.end()) hosts.push_back(host);
  };
  add(default_route_address());
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) == 0) {
    for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
      const bool usable = (entry->ifa_flags & IFF_UP) != 0 && (entry->ifa_flags & IFF_LOOPBACK) == 0;
      if (usable && entry->ifa_addr != nullptr && entry->ifa_addr->sa_family == AF_INET) {
        add(text_of(*reinterpret_cast<const sockaddr_in*>(entry->ifa_addr)));
      }
    }
    freeifaddrs(list);
  }
  return hosts;
}

/// Names this running kernel and network namespace: who has the same key has the same loopback interface.
std::string own_host_key() {
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  struct stat status {};
  const bool known = stat("/proc/self/ns/net", &status) == 0;
  return fmt::format("{}-{}", boot.empty() ? "unknown" : boot, known ? status.st_ino : 0);
}

/// Connects to one host, or gives up after `seconds`; a closed descriptor and the reason where it fails.
FileDescriptor try_connect(const std::string& host, int port, double seconds, std::string& why) {
  FileDescriptor socket_fd(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const sockaddr_in address = endpoint(inet_addr(host.c_str()), port);
  const auto failed = [&](const std::string& reason_text) {
    why += fmt::format("{}{}:{}: {}", why.empty() ? "" : "; ", host, port, reason_text);
    return FileDescriptor();
  };
  if (connect(socket_fd.number(), generic(address), sizeof address) == 0) return socket_fd;
  if (errno != EINPROGRESS) return failed(reason());
  pollfd waiting{socket_fd.number(), POLLOUT, 0};
  if (poll(&waiting, 1, static_cast<int>(seconds * 1000)) <= 0) return failed("no answer");
  int error = 0;
  socklen_t length = sizeof error;
  getsockopt(socket_fd.number(), SOL_SOCKET, SO_ERROR, &error, &length);
  if (error != 0) return failed(std::strerror(error));
  return socket_fd;
}

}  // namespace

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  if (this != &other) {
    close();
    number_ = other.number_;
    other.number_ = -1;
  }
  return *this;
}

void FileDescriptor::close() {
  if (number_ >= 0) ::close(number_);
  number_ = -1;
}

Connection::Connection(FileDescriptor socket) : socket_(std::move(socket)) {
  const int on = 1;
  setsockopt(socket_.number(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

std::optional<Frame> Connection::next() {
  std::optional<Frame> frame = take_frame();
  if (!frame && open() && !ended_) {
    read_arrived();
    frame = take_frame();
  }
  return frame;
}

void Connection::read_arrived() {
  char buffer[4096];
  while (true) {
    const ssize_t got = recv(socket_.number(), buffer, sizeof buffer, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    if (got <= 0) {
      ended_ = true;
      return;
    }
    received_.append(buffer, static_cast<std::size_t>(got));
  }
}

std::optional<Frame> Connection::take_frame() {
  FrameHead head{};
  if (received_.size() < sizeof head) return std::nullopt;
  std::memcpy(&head, received_.data(), sizeof head);
  if (head.bytes > kLargestFrame) {  // whoever this is speaks something else
    received_.clear();
    ended_ = true;
    return std::nullopt;
  }
  if (received_.size() < sizeof head + head.bytes) return std::nullopt;
  Frame frame{head.type, received_.substr(sizeof head, head.bytes)};
  received_.erase(0, sizeof head + head.bytes);
  return frame;
}

void Connection::send(std::uint32_t type, const std::string& payload) {
  const FrameHead head{type, static_cast<std::uint32_t>(payload.size())};
  unsent_.append(reinterpret_cast<const char*>(&head), sizeof head);
  unsent_ += payload;
  flush();
}

void Connection::flush() {
  while (!unsent_.empty() && open()) {
    const ssize_t sent = ::send(socket_.number(), unsent_.data(), unsent_.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK) unsent_.clear();  // next() finds out that it has ended
    if (sent <= 0) return;
    unsent_.erase(0, static_cast<std::size_t>(sent));
  }
}

void Connection::finish_sending() {
  flush();
  shutdown(socket_.number(), SHUT_WR);
}

std::string Address::text() const {
  std::string line = fmt::format("{} {} {}", host_key, port, token);
  for (const std::string& host : hosts) line += " " + host;
  return line;
}

Address Address::of(const std::string& text) {
  std::istringstream line(text);
  Address address;
  if (!(line >> address.host_key >> address.port >> address.token)) {
    throw CollectiveError(fmt::format("'{}' is no address of a watchdog", text));
  }
  for (std::string host; line >> host;) address.hosts.push_back(host);
  return address;
}

FileDescriptor listen_anywhere(Address& address) {
  FileDescriptor listener(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_in own = endpoint(INADDR_ANY, 0);
  socklen_t length = sizeof own;
  if (!listener.open() || bind(listener.number(), generic(own), sizeof own) != 0 ||
      listen(listener.number(), SOMAXCONN) != 0 ||
      getsockname(listener.number(), reinterpret_cast<sockaddr*>(&own), &length) != 0) {
    throw CollectiveError(fmt::format("the watchdog cannot listen on a TCP port: {}", reason()));
  }
  std::random_device random;
  address = {own_host_key(), own_addresses(), ntohs(own.sin_port), (std::uint64_t{random()} << 32) | random()};
  return listener;
}

Connection accept_from(const FileDescriptor& listener) {
  FileDescriptor socket_fd(accept4(listener.number(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  return socket_fd.open() ? Connection(std::move(socket_fd)) : Connection();
}

Connection connect_to(const Address& address, double seconds) {
  std::vector<std::string> hosts = address.hosts;
  if (address.host_key == own_host_key()) hosts.insert(hosts.begin(), "127.0.0.1");
  std::string why;
  for (const std::string& host : hosts) {
    FileDescriptor socket_fd = try_connect(host, address.port, std::min(seconds, kHostSeconds), why);
    if (socket_fd.open()) return Connection(std::move(socket_fd));
  }
  throw CollectiveError(
      fmt::format("the watchdog of rank 0 cannot be reached ({}); allow TCP connections between the hosts of a job",
                  why.empty() ? "its host has no network address" : why));
}

}  // namespace annulus
