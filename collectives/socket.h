#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace annulus {

/// A file descriptor and its end.
class FileDescriptor {
 public:
  explicit FileDescriptor(int number = -1) : number_(number) {}
  FileDescriptor(FileDescriptor&& other) noexcept : number_(other.number_) { other.number_ = -1; }
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  ~FileDescriptor() { close(); }
  void close();
  int number() const { return number_; }
  bool open() const { return number_ >= 0; }

 private:
  int number_;
};

struct Frame {
  std::uint32_t type = 0;
  std::string payload;
};

/// Frames over a connected TCP socket; never blocks.
class Connection {
 public:
  Connection() = default;
  explicit Connection(FileDescriptor socket);

  bool open() const { return socket_.open(); }
  int number() const { return socket_.number(); }
  bool wants_to_write() const { return !unsent_.empty(); }

  /// The next frame that has arrived. Where there is none, `ended()` says whether the other side has closed or reset.
  std::optional<Frame> next();
  bool ended() const { return ended_; }

  void send(std::uint32_t type, const std::string& payload);
  void flush();

  /// Says that nothing more will be sent.
  void finish_sending();
  void close() { socket_.close(); }

 private:
  void read_arrived();
  std::optional<Frame> take_frame();

  FileDescriptor socket_;
  std::string received_;
  std::string unsent_;
  bool ended_ = false;
};

/// Where a listening process can be reached.
struct Address {
  std::string host_key;            ///< the same for processes that share a loopback interface
  std::vector<std::string> hosts;  ///< IPv4 addresses, that of the default route first
  int port = 0;
  std::uint64_t token = 0;  ///< to be shown by whoever connects

  std::string text() const;
  /// Throws CollectiveError where it is no address.
  static Address of(const std::string& text);
};

/// A listening socket on all interfaces, and its address. Throws CollectiveError.
FileDescriptor listen_anywhere(Address& address);

/// A connection that waits on `listener`, or a closed one.
Connection accept_from(const FileDescriptor& listener);

/// Tries loopback where this is the same host, else each host of the address in turn. Throws CollectiveError.
Connection connect_to(const Address& address, double seconds);

}  // namespace annulus
