#include "runtime/core/communicator.h"

#include <thread>

#include "runtime/core/error.h"

namespace annulus {

std::string_view name_of(CollectiveKind kind) {
  switch (kind) {
    case CollectiveKind::all_reduce:
      return "all_reduce";
    case CollectiveKind::all_gather:
      return "all_gather";
    case CollectiveKind::reduce_scatter:
      return "reduce_scatter";
    case CollectiveKind::all_to_all:
      return "all_to_all";
    case CollectiveKind::broadcast:
      return "broadcast";
    case CollectiveKind::gather:
      return "gather";
    case CollectiveKind::scatter:
      return "scatter";
    case CollectiveKind::reduce:
      return "reduce";
    case CollectiveKind::send:
      return "send";
    case CollectiveKind::recv:
      return "recv";
    case CollectiveKind::shift:
      return "shift";
  }
  return "?";
}

std::string_view name_of(Reduction reduction) { return reduction == Reduction::sum ? "sum" : "max"; }

std::string_view name_of(Transport transport) {
  switch (transport) {
    case Transport::direct:
      return "direct";
    case Transport::slots:
      return "slots";
    case Transport::messages:
      return "messages";
    case Transport::hierarchical:
      return "hierarchical";
    case Transport::nccl:
      return "nccl";
  }
  return "?";
}

void Communicator::use_stream(Stream* stream) {
  if (stream != nullptr) throw InternalError("this communicator's buffers lie in the host's memory, not in a device's");
}

std::shared_ptr<std::byte> Communicator::allocate_shared(std::int64_t) { return nullptr; }

CommunicatorCounters Communicator::counters() const {
  CommunicatorCounters sum;
  for (const CommunicatorCounters& one : counters_) {
    sum.calls += one.calls;
    sum.payload_bytes += one.payload_bytes;
  }
  return sum;
}

void wait(Communicator::Pending transfer) {
  while (!transfer->test()) std::this_thread::yield();
}

}  // namespace annulus
