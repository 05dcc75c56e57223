#pragma once

#include <cstdint>
#include <span>

#include "runtime/execute/kernel.h"
#include "runtime/ops/attention.h"
#include "runtime/ops/collectives.h"
#include "runtime/ops/cross_entropy.h"
#include "runtime/ops/elementwise.h"
#include "runtime/ops/embed.h"
#include "runtime/ops/layer_norm.h"
#include "runtime/ops/optimizer.h"

namespace annulus {

/// The CPU's kernels: one a compute kind (matmul's is in runtime/cpu/matmul.h). What an op computes is said with its
/// class in runtime/ops. Two runs on the same number of threads are bitwise equal.
void run(const Add& op, const KernelArguments& arguments);
void run(const AddBias& op, const KernelArguments& arguments);
void run(const ColumnSum& op, const KernelArguments& arguments);
void run(const Gelu& op, const KernelArguments& arguments);
void run(const GeluGrad& op, const KernelArguments& arguments);
void run(const LayerNorm& op, const KernelArguments& arguments);
void run(const LayerNormGrad& op, const KernelArguments& arguments);
void run(const ResidualNorm& op, const KernelArguments& arguments);
void run(const Embed& op, const KernelArguments& arguments);
void run(const EmbedGrad& op, const KernelArguments& arguments);
void run(const Dropout& op, const KernelArguments& arguments);
void run(const RowMax& op, const KernelArguments& arguments);
void run(const RowSumExp& op, const KernelArguments& arguments);
void run(const RowTarget& op, const KernelArguments& arguments);
void run(const RowSoftmax& op, const KernelArguments& arguments);
void run(const Nll& op, const KernelArguments& arguments);
void run(const NllGrad& op, const KernelArguments& arguments);
void run(const AttentionStep& op, const KernelArguments& arguments);
void run(const AttentionStepGrad& op, const KernelArguments& arguments);
void run(const SumSquares& op, const KernelArguments& arguments);
void run(const Accumulate& op, const KernelArguments& arguments);
void run(const Cast& op, const KernelArguments& arguments);
void run(const Zero& op, const KernelArguments& arguments);
void run(const Slice& op, const KernelArguments& arguments);
void run(const Clip& op, const KernelArguments& arguments);
void run(const AdamW& op, const KernelArguments& arguments);

using OpTypes = std::span<const ValueType>;

/// Scratch memory that `run` of the op wants, in bytes; it may depend on `thread_count()`. Most kinds want none.
std::int64_t workspace_bytes(const LayerNormGrad& op, OpTypes inputs, OpTypes outputs);
std::int64_t workspace_bytes(const SumSquares& op, OpTypes inputs, OpTypes outputs);
std::int64_t workspace_bytes(const AttentionStep& op, OpTypes inputs, OpTypes outputs);
std::int64_t workspace_bytes(const AttentionStepGrad& op, OpTypes inputs, OpTypes outputs);
template <class Kind>
std::int64_t workspace_bytes(const Kind&, OpTypes, OpTypes) {
  return 0;
}

}  // namespace annulus
