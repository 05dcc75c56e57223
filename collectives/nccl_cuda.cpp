#include <cuda_runtime.h>
#include <fmt/format.h>
#include <nccl.h>

#include <cstring>

#include "collectives/nccl_library.h"
#include "runtime/core/error.h"

namespace annulus {

struct NcclLibrary::Group {
  ncclComm_t handle = nullptr;
  cudaStream_t own = nullptr, stream = nullptr;
  bool aborted = false;
};

struct NcclLibrary::Mark {
  cudaEvent_t event = nullptr;
};

namespace {

void check(ncclResult_t result, const char* what) {
  if (result == ncclSuccess || result == ncclInProgress) return;
  throw CollectiveError(fmt::format("{}: NCCL error {}: {} ({}); NCCL_DEBUG=INFO tells more", what,
                                    static_cast<int>(result), ncclGetErrorString(result), ncclGetLastError(nullptr)));
}

void check(cudaError_t code, const char* what) {
  if (code != cudaSuccess)
    throw CollectiveError(fmt::format("{}: CUDA error {}: {}", what, static_cast<int>(code), cudaGetErrorString(code)));
}

ncclDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return ncclFloat32;
    case DType::f64:
      return ncclFloat64;
    case DType::i32:
      return ncclInt32;
    case DType::bf16:
      return ncclBfloat16;
    case DType::f16:
      return ncclFloat16;
  }
  throw InternalError("a type that NCCL does not carry");
}

ncclRedOp_t operation_of(Reduction reduction) { return reduction == Reduction::sum ? ncclSum : ncclMax; }

class RealNccl final : public NcclLibrary {
 public:
  explicit RealNccl(int ordinal) : ordinal_(ordinal) {}

  Id new_id() override {
    ncclUniqueId made;
    check(ncclGetUniqueId(&made), "a new group");
    Id id;
    static_assert(sizeof(made) == sizeof(id));
    std::memcpy(id.data(), &made, sizeof(made));
    return id;
  }

  Group* connect(const Id& id, int size, int rank) override {
    select();
    auto group = std::make_unique<Group>();
    check(cudaStreamCreateWithFlags(&group->own, cudaStreamNonBlocking), "a stream");
    group->stream = group->own;
    ncclUniqueId unique;
    std::memcpy(&unique, id.data(), sizeof(unique));
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    check(ncclCommInitRankConfig(&group->handle, size, unique, rank, &config), "joining a group");
    return group.release();
  }
  void use_stream(Group& group, Stream* stream) override {
    group.stream = stream == nullptr ? group.own : reinterpret_cast<cudaStream_t>(stream);
  }
  bool accepted(Group& group) override {
    ncclResult_t state = ncclSuccess;
    check(ncclCommGetAsyncError(group.handle, &state), "a group's state");
    check(state, "a group");
    return state == ncclSuccess;
  }
  void finalize(Group& group) override { check(ncclCommFinalize(group.handle), "leaving a group"); }
  void destroy(Group& group) override {
    const std::unique_ptr<Group> owned(&group);
    cudaSetDevice(ordinal_);
    if (!group.aborted) ncclCommDestroy(group.handle);
    cudaStreamDestroy(group.own);
  }
  void abort(Group& group) override {
    cudaSetDevice(ordinal_);
    group.aborted = true;
    ncclCommAbort(group.handle);
  }

  void begin_calls() override {
    select();
    check(ncclGroupStart(), "calls");
  }
  void end_calls() override { check(ncclGroupEnd(), "calls"); }
  void all_reduce(Group& group, const Call& call) override {
    check(ncclAllReduce(call.send, call.receive, count(call), type_of(call.dtype), operation_of(call.reduction),
                        group.handle, group.stream),
          "all_reduce");
  }
  void all_gather(Group& group, const Call& call) override {
    check(ncclAllGather(call.send, call.receive, count(call), type_of(call.dtype), group.handle, group.stream),
          "all_gather");
  }
  void reduce_scatter(Group& group, const Call& call) override {
    check(ncclReduceScatter(call.send, call.receive, count(call), type_of(call.dtype), operation_of(call.reduction),
                            group.handle, group.stream),
          "reduce_scatter");
  }
  void broadcast(Group& group, const Call& call) override {
    check(
        ncclBroadcast(call.send, call.receive, count(call), type_of(call.dtype), call.root, group.handle, group.stream),
        "broadcast");
  }
  void reduce(Group& group, const Call& call) override {
    check(ncclReduce(call.send, call.receive, count(call), type_of(call.dtype), operation_of(call.reduction), call.root,
                     group.handle, group.stream),
          "reduce");
  }
  void send(Group& group, const Call& call) override {
    check(ncclSend(call.send, count(call), type_of(call.dtype), call.root, group.handle, group.stream), "send");
  }
  void receive(Group& group, const Call& call) override {
    check(ncclRecv(call.receive, count(call), type_of(call.dtype), call.root, group.handle, group.stream), "recv");
  }
  void copy(Group& group, const void* from, void* to, std::int64_t bytes) override {
    check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDeviceToDevice, group.stream), "a copy");
  }

  Mark* mark(Group& group) override {
    select();
    auto mark = std::make_unique<Mark>();
    check(cudaEventCreateWithFlags(&mark->event, cudaEventDisableTiming), "an event");
    check(cudaEventRecord(mark->event, group.stream), "an event");
    return mark.release();
  }
  bool passed(Mark& mark) override {
    select();  // or a thread that only asks would start on GPU 0, and take memory there
    const cudaError_t state = cudaEventQuery(mark.event);
    if (state == cudaErrorNotReady) {
      cudaGetLastError();  // which it would be until somebody takes it for a launch's
      return false;
    }
    check(state, "a transfer");
    return true;
  }
  void release(Mark& mark) override {
    const std::unique_ptr<Mark> owned(&mark);
    cudaSetDevice(ordinal_);
    cudaEventDestroy(mark.event);
  }

 private:
  /// The runtime's choice of a GPU is the thread's, and transfers may be moved on by a thread of their own.
  void select() const { check(cudaSetDevice(ordinal_), "the GPU"); }
  static std::size_t count(const Call& call) { return static_cast<std::size_t>(call.count); }

  int ordinal_;
};

}  // namespace

std::string nccl_version() {
  int version = 0;
  check(ncclGetVersion(&version), "the library's version");
  return fmt::format("{}.{}.{}", version / 10000, version % 10000 / 100, version % 100);
}

std::unique_ptr<NcclLibrary> nccl_library(int ordinal) { return std::make_unique<RealNccl>(ordinal); }

}  // namespace annulus
