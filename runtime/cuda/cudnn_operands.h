#pragma once

#include <array>

#include "runtime/cuda/attention_rows.h"
#include "runtime/cuda/cudnn_plan.h"
#include "runtime/execute/kernel.h"

namespace annulus {

/// The operands of cuDNN's graphs. The last four are those of the backward alone.
enum class CudnnOperand : std::uint8_t { q = 1, k, v, out, lse, out_grad, query_grad, key_grad, value_grad };

inline constexpr std::array kForwardOperands = {CudnnOperand::q, CudnnOperand::k, CudnnOperand::v, CudnnOperand::out,
                                                CudnnOperand::lse};
inline constexpr std::array kBackwardOperands = {
    CudnnOperand::q,          CudnnOperand::k,        CudnnOperand::v,
    CudnnOperand::out,        CudnnOperand::lse,      CudnnOperand::out_grad,
    CudnnOperand::query_grad, CudnnOperand::key_grad, CudnnOperand::value_grad};

/// An operand as a tensor [sequence, head, position, element]; strides in elements.
struct CudnnLayout {
  DType type = DType::f32;
  std::array<std::int64_t, 4> extents{}, strides{};
};
CudnnLayout layout_of(const CudnnGraphKey& graph, CudnnOperand operand);

/// Our part of the workspace, before cuDNN's: what it leaves packed, or reads so. A multiple of 256.
std::int64_t packed_bytes(const CudnnGraphKey& graph);

/// One call: where the operands of a plan's graph lie among those of the op, and what we do before and after. `put`
/// is called with the structs of attention_rows.h, in order.
class CudnnCall {
 public:
  CudnnCall(const AttentionTask& task, const CudnnPlan& plan, const KernelArguments& arguments);

  /// First element of an operand of the graph.
  std::byte* at(CudnnOperand operand) const;

  /// Rows that cuDNN does not write; the log-sum-exp that it reads.
  template <class Put>
  void prepare(const Put& put) const {
    constexpr std::uint32_t kNoKey = 0xFF800000;  // -infinity
    const Tensor &first = arguments_.outputs[0], &second = arguments_.outputs[1];
    const bool forward = task_.direction == AttentionDirection::forward;
    if (task_.first) fill_other_rows(put, first, queries_, 0);
    if (!forward) fill_other_rows(put, second, keys_, 0);
    if (forward && task_.first) fill_other_rows(put, second, queries_, kNoKey);
    if (!forward && graph_) {
      put(PackLogSumExp{arguments_.inputs[5].as<float>(), packed_lse_, queries_, task_.heads});
    }
  }

  /// Packed results join those of earlier steps; where there is no graph, earlier ones stay, rounded if need be.
  template <class Put>
  void finish(const Put& put) const {
    with_storage([&]<class T>(T) {
      const Tensor& result = arguments_.outputs[0];
      if (packed_keys_ != nullptr) {
        put(WidenPackedRows<T>{arguments_.outputs[1].as<float>(), reinterpret_cast<const T*>(packed_keys_), keys_,
                               2 * task_.kv_heads * task_.head_dim});
      }
      if (task_.first || (!graph_ && is_in_place(result))) return;
      if (task_.direction == AttentionDirection::backward) {
        put(AddPackedRows<T>{EitherWidth<T>(result), arguments_.inputs[7].as<float>(), packed_rows_, queries_,
                             task_.heads * task_.head_dim});
      } else {
        put(MergePackedRows<T>{EitherWidth<T>(result), arguments_.inputs[4].as<float>(),
                               arguments_.outputs[1].as<float>(), packed_rows_, packed_lse_, queries_, task_.heads,
                               task_.head_dim});
      }
    });
  }

 private:
  template <class Put>
  static void fill_other_rows(const Put& put, const Tensor& tensor, const SequenceRows& rows, std::uint32_t value) {
    if (rows.count == rows.positions) return;
    const std::int64_t row_words = tensor.bytes() / tensor.shape.rows() / 4;
    put(FillOtherRows{reinterpret_cast<std::uint32_t*>(tensor.data), rows, row_words, value});
  }
  bool is_in_place(const Tensor& result) const {
    return result.data == arguments_.inputs[task_.direction == AttentionDirection::forward ? 4 : 7].data;
  }
  /// Calls `function(T{})` with the type in which the operands are stored.
  template <class Function>
  void with_storage(const Function& function) const {
    task_.storage == DType::f16 ? function(Float16{}) : function(BFloat16{});
  }
  std::byte* query_row(std::byte* data, DType type) const;
  std::byte* key_row(std::byte* data, DType type, std::int64_t part) const;

  const AttentionTask& task_;
  const std::optional<CudnnGraphKey>& graph_;
  const KernelArguments& arguments_;
  SequenceRows queries_, keys_;
  bool packed_;
  float *packed_rows_ = nullptr, *packed_lse_ = nullptr;
  std::byte* packed_keys_ = nullptr;
};

}  // namespace annulus
