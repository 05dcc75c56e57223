#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>

#include "runtime/cuda/cudnn_plan.h"
#include "runtime/execute/kernel.h"

struct CUstream_st;

namespace annulus {

struct CudnnOptions {
  Determinism determinism = Determinism::any;
  std::int64_t workspace_bytes = CudnnLimits{}.workspace_bytes;  ///< a graph that wants more is refused
};

/// Attention steps on cuDNN. Graphs are built where `refusal` first meets them and kept: running builds nothing. One
/// object a rank; not thread-safe.
class CudnnAttention {
 public:
  /// On the current CUDA device. Throws DeviceError.
  explicit CudnnAttention(const CudnnOptions& options);
  /// Without a device: tells what cuDNN supports on the device that `properties` (cuDNN's own JSON) describe, but
  /// cannot run. Throws DeviceError.
  CudnnAttention(std::string_view properties, int compute_capability, const CudnnOptions& options);
  ~CudnnAttention();
  CudnnAttention(CudnnAttention&&) noexcept;

  /// Why cuDNN cannot do the task, in cuDNN's words where it is its reason; empty where it can.
  const std::string& refusal(const AttentionTask& task);
  const std::string& refusal(const CudnnGraphKey& graph);
  /// What `run` wants, in bytes: estimated where there is no device. Throws InternalError for a refused task.
  std::int64_t workspace_bytes(const AttentionTask& task);
  /// Puts the task on the stream: arguments as of its op. Throws DeviceError, and
  /// InternalError for a refused task.
  void run(const AttentionTask& task, const KernelArguments& arguments, CUstream_st* stream);

 private:
  class Graphs;
  struct Planned {
    AttentionTask task;
    CudnnPlan plan;
  };
  const CudnnPlan& plan(const AttentionTask& task);
  const CudnnPlan& accepted_plan(const AttentionTask& task);

  CudnnLimits limits_;
  std::unique_ptr<Graphs> graphs_;
  std::deque<Planned> planned_;  ///< a ring has few different steps
};

}  // namespace annulus
