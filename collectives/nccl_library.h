#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "runtime/core/communicator.h"

namespace annulus {

/// What the communicator asks of NCCL and of CUDA's streams: one call each, so that tests can stand in for them. No
/// call blocks. A call on a group leaves it *in progress* until `accepted` says otherwise; nothing else may be asked of
/// the group before. Throws CollectiveError. Calls come from one thread at a time, `abort` from any.
class NcclLibrary {
 public:
  /// What the ranks of a group find each other by.
  using Id = std::array<std::byte, 128>;
  /// A group and its stream, as this rank knows it.
  struct Group;
  /// A place on a group's stream.
  struct Mark;
  /// The operands of a call; `root` is the other rank of a message, too.
  struct Call {
    const void* send = nullptr;
    void* receive = nullptr;
    std::int64_t count = 0;
    DType dtype = DType::f32;
    Reduction reduction = Reduction::sum;
    int root = 0;
  };

  virtual ~NcclLibrary() = default;
  virtual Id new_id() = 0;
  virtual Group* connect(const Id& id, int size, int rank) = 0;
  /// Calls of the group go on `stream` from now on; null: on its own.
  virtual void use_stream(Group& group, Stream* stream) = 0;
  /// Whether what was asked last is on its way. Throws where the group has failed.
  virtual bool accepted(Group& group) = 0;
  virtual void finalize(Group& group) = 0;
  /// Of a group that is finalized, or aborted.
  virtual void destroy(Group& group) = 0;
  /// Ends whatever the group is in, on this rank.
  virtual void abort(Group& group) = 0;

  /// Calls between the two are one.
  virtual void begin_calls() = 0;
  virtual void end_calls() = 0;
  virtual void all_reduce(Group& group, const Call& call) = 0;
  virtual void all_gather(Group& group, const Call& call) = 0;
  virtual void reduce_scatter(Group& group, const Call& call) = 0;
  virtual void broadcast(Group& group, const Call& call) = 0;
  virtual void reduce(Group& group, const Call& call) = 0;
  virtual void send(Group& group, const Call& call) = 0;
  virtual void receive(Group& group, const Call& call) = 0;
  /// A copy within this rank's device, on the group's stream.
  virtual void copy(Group& group, const void* from, void* to, std::int64_t bytes) = 0;

  /// Behind all that was asked of the group so far.
  virtual Mark* mark(Group& group) = 0;
  virtual bool passed(Mark& mark) = 0;
  virtual void release(Mark& mark) = 0;
};

/// Of the NCCL that this build runs with, as in `2.28.3`. In builds with CUDA.
std::string nccl_version();

/// NCCL itself, for GPU `ordinal` of this process. In builds with CUDA.
std::unique_ptr<NcclLibrary> nccl_library(int ordinal);

}  // namespace annulus
