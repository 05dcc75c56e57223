#include <fmt/format.h>

#include "runtime/cuda/attention.h"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/launch.h"

namespace annulus {
namespace {

std::vector<ValueType> types_of(std::span<const Tensor> tensors) {
  std::vector<ValueType> types;
  for (const Tensor& tensor : tensors) types.push_back({tensor.dtype, tensor.shape, {}});
  return types;
}

}  // namespace

CudnnAttention* CudaAttention::cudnn_for(const AttentionTask& task) {
  if (!is_half(task.storage)) return nullptr;
  if (!cudnn_) cudnn_.emplace(options_);
  const std::string& why = cudnn_->refusal(task);
  if (why.empty()) return &*cudnn_;
  if (told_.insert(why).second && tell_) {
    tell_(fmt::format("attention by kernels without tensor cores, many times slower than cuDNN's: {}", why));
  }
  return nullptr;
}

template <class Step>
std::int64_t CudaAttention::workspace_bytes(const Step& op, OpDefinition::Types inputs, OpDefinition::Types outputs) {
  const AttentionTask task = task_of(op, inputs, outputs);
  CudnnAttention* const cudnn = cudnn_for(task);
  return cudnn != nullptr ? cudnn->workspace_bytes(task) : device_workspace_bytes(op, inputs, outputs);
}

template <class Step>
void CudaAttention::run(const Step& op, const KernelArguments& arguments, CUstream_st* stream) {
  const AttentionTask task = task_of(op, types_of(arguments.inputs), types_of(arguments.outputs));
  if (CudnnAttention* const cudnn = cudnn_for(task)) return cudnn->run(task, arguments, stream);
  run_kernel(op, arguments, stream);
  arguments.counters->attended_pairs += visited_pairs(AttentionPlan(op.composite(), op.blocks(), arguments));
}

template std::int64_t CudaAttention::workspace_bytes(const AttentionStep&, OpDefinition::Types, OpDefinition::Types);
template std::int64_t CudaAttention::workspace_bytes(const AttentionStepGrad&, OpDefinition::Types,
                                                     OpDefinition::Types);
template void CudaAttention::run(const AttentionStep&, const KernelArguments&, CUstream_st*);
template void CudaAttention::run(const AttentionStepGrad&, const KernelArguments&, CUstream_st*);

}  // namespace annulus
