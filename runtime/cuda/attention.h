#pragma once

#include <functional>
#include <optional>
#include <set>
#include <string>

#include "runtime/cuda/cudnn_attention.h"

namespace annulus {

/// The attention steps of one GPU: cuDNN does those that it takes, our own kernels (attention_forward.h,
/// attention_backward.h) all others. Not thread-safe.
class CudaAttention {
 public:
  /// Told once of every reason why a step of halves is not cuDNN's.
  using Tell = std::function<void(const std::string&)>;
  CudaAttention(const CudnnOptions& options, Tell tell) : options_(options), tell_(std::move(tell)) {}
  /// With a cuDNN that is there already.
  CudaAttention(CudnnAttention cudnn, Tell tell) : tell_(std::move(tell)), cudnn_(std::move(cudnn)) {}

  /// Of AttentionStep or AttentionStepGrad; throws DeviceError.
  template <class Step>
  std::int64_t workspace_bytes(const Step& op, OpDefinition::Types inputs, OpDefinition::Types outputs);
  template <class Step>
  void run(const Step& op, const KernelArguments& arguments, CUstream_st* stream);

 private:
  /// cuDNN, if it does the task. It is started for the first task of halves.
  CudnnAttention* cudnn_for(const AttentionTask& task);

  CudnnOptions options_;
  Tell tell_;
  std::optional<CudnnAttention> cudnn_;
  std::set<std::string> told_;
};

}  // namespace annulus
