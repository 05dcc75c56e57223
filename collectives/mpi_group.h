#pragma once

#define OMPI_SKIP_MPICXX 1
#include <mpi.h>

#include <cstdint>
#include <exception>
#include <memory>
#include <vector>

#include "collectives/message_reduction.h"
#include "collectives/mpi_communicator.h"
#include "collectives/peer_memory.h"
#include "collectives/progress.h"
#include "collectives/request.h"

namespace annulus {

/// What all communicators of a rank share.
struct MpiShared {
  MpiOptions options;
  std::shared_ptr<ProgressEngine> progress = std::make_shared<ProgressEngine>();
  std::shared_ptr<ScratchPool> scratch = std::make_shared<ScratchPool>();
  std::shared_ptr<PeerMemory> memory = std::make_shared<PeerMemory>();
  TransportChoice choice;  ///< where empty: hierarchical whatever can be
  int world_size = 0;
  int exceptions = std::uncaught_exceptions();
};

/// One group as MPI knows it, and the name of the call under way for its errors.
struct MpiGroup {
  std::shared_ptr<MpiShared> shared;
  MPI_Comm handle = MPI_COMM_NULL;
  int rank = 0;
  int size = 0;
  std::vector<int> members;          ///< ranks of the world
  std::vector<std::uint64_t> hosts;  ///< of the members; equal for ranks of one host

  std::uint64_t host() const { return hosts[static_cast<std::size_t>(rank)]; }
};

/// Throws CollectiveError where `code`, of a call to MPI for `request`, is none of success.
void check(int code, const MpiGroup& group, const Request& request);

/// `count` elements as a (count, type) pair that fits MPI's int, also where MPI multiplies it by the size of the group.
class MpiElements {
 public:
  MpiElements(const MpiGroup& group, const Request& request, std::int64_t count);
  MpiElements(const MpiElements&) = delete;
  MpiElements& operator=(const MpiElements&) = delete;
  ~MpiElements();

  int count() const { return count_; }
  MPI_Datatype type() const { return type_; }

 private:
  MPI_Datatype type_;
  int count_;
  bool owned_ = false;
};

/// MPI requests that complete together.
class MpiExchange final : public MessageExchange {
 public:
  MpiExchange(const MpiGroup& group, const Request& request) : group_(group), request_(request) {}

  void send(const std::byte* buffer, std::int64_t count, int peer, int tag) override;
  void receive(std::byte* buffer, std::int64_t count, int peer, int tag) override;
  MPI_Request& next() { return requests_.emplace_back(MPI_REQUEST_NULL); }
  bool test() override;

 private:
  const MpiGroup& group_;
  const Request request_;
  std::vector<MPI_Request> requests_;
  std::vector<MPI_Status> statuses_;
};

/// Every rank's `mine`, by rank.
template <class T>
std::vector<T> gathered(const MpiGroup& group, const T& mine) {
  std::vector<T> all(static_cast<std::size_t>(group.size));
  check(MPI_Allgather(&mine, sizeof(T), MPI_BYTE, all.data(), sizeof(T), MPI_BYTE, group.handle), group,
        {CollectiveKind::all_gather, nullptr, nullptr, sizeof(T) / 4, DType::i32});
  return all;
}

bool all_of_group(const MpiGroup& group, bool mine);

}  // namespace annulus
