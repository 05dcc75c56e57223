#include "collectives/staged_communicator.h"

#include <utility>
#include <vector>

#include "collectives/request.h"
#include "runtime/core/error.h"

namespace annulus {
namespace {

/// Begins the request with other buffers.
Communicator::Pending begin(Communicator& group, const Request& r, const void* send, void* receive) {
  switch (r.kind) {
    case CollectiveKind::all_reduce:
      return group.all_reduce(send, receive, r.count, r.dtype, r.reduction);
    case CollectiveKind::all_gather:
      return group.all_gather(send, receive, r.count, r.dtype);
    case CollectiveKind::reduce_scatter:
      return group.reduce_scatter(send, receive, r.count, r.dtype, r.reduction);
    case CollectiveKind::all_to_all:
      return group.all_to_all(send, receive, r.count, r.dtype);
    case CollectiveKind::broadcast:
      return group.broadcast(receive, r.count, r.dtype, r.peer);
    case CollectiveKind::gather:
      return group.gather(send, receive, r.count, r.dtype, r.peer);
    case CollectiveKind::scatter:
      return group.scatter(send, receive, r.count, r.dtype, r.peer);
    case CollectiveKind::reduce:
      return group.reduce(send, receive, r.count, r.dtype, r.reduction, r.peer);
    case CollectiveKind::send:
      return group.send(send, r.count, r.dtype, r.peer);
    case CollectiveKind::recv:
      return group.recv(receive, r.count, r.dtype, r.peer);
    case CollectiveKind::shift:
      return group.shift(send, receive, r.count, r.dtype, r.peer);
  }
  throw InternalError("a kind of collective that cannot be staged");
}

class StagedTransfer final : public Transfer {
 public:
  StagedTransfer(Communicator& group, const Request& request, const DeviceCopies& copies)
      : copies_(copies), device_(buffers_of(request, group.rank(), group.size())) {
    const bool same = request.kind == CollectiveKind::broadcast;  // one buffer, which one rank sends
    receive_.resize(static_cast<std::size_t>(device_.receive.bytes));
    send_.resize(same ? 0 : static_cast<std::size_t>(device_.send.bytes));
    std::byte* const source = same ? receive_.data() : send_.data();
    if (device_.send.bytes > 0) copies_.to_host(source, device_.send.begin, device_.send.bytes);
    transfer_ = begin(group, request, send_.data(), receive_.data());
  }

  bool test() override {
    if (complete_) return true;
    if (!transfer_->test()) return false;
    if (device_.receive.bytes > 0)
      copies_.to_device(const_cast<std::byte*>(device_.receive.begin), receive_.data(), device_.receive.bytes);
    return complete_ = true;
  }
  Transport transport() const override { return transfer_->transport(); }

 private:
  const DeviceCopies& copies_;
  const Buffers device_;
  std::vector<std::byte> send_, receive_;
  Communicator::Pending transfer_;
  bool complete_ = false;
};

class StagedCommunicator final : public RequestCommunicator {
 public:
  StagedCommunicator(std::unique_ptr<Communicator> host, DeviceCopies copies)
      : host_(std::move(host)), copies_(std::move(copies)) {}

  int size() const override { return host_->size(); }
  int rank() const override { return host_->rank(); }
  int hosts() const override { return host_->hosts(); }
  bool has_hierarchy() const override { return host_->has_hierarchy(); }
  void choose_transports(TransportChoice choice) override { host_->choose_transports(std::move(choice)); }
  std::unique_ptr<Communicator> split(int color, int key) override {
    return staged_communicator(host_->split(color, key), copies_);
  }

 protected:
  Pending start(const Request& request) override { return std::make_unique<StagedTransfer>(*host_, request, copies_); }

 private:
  std::unique_ptr<Communicator> host_;
  DeviceCopies copies_;
};

}  // namespace

std::unique_ptr<Communicator> staged_communicator(std::unique_ptr<Communicator> host, DeviceCopies copies) {
  return std::make_unique<StagedCommunicator>(std::move(host), std::move(copies));
}

}  // namespace annulus
