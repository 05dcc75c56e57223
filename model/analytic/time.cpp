#include "model/analytic/time.h"

#include <algorithm>
#include <initializer_list>
#include <string_view>
#include <utility>

#include "model/analytic/flops.h"
#include "model/analytic/gradients.h"
#include "model/analytic/parameters.h"

namespace annulus {
namespace {

double real(std::int64_t count) { return static_cast<double>(count); }

/// Bytes that element-wise work reads and writes, per call, and the op kinds whose measured rates apply. Section 6.
struct Pass {
  const char* name;
  const char* forward_kind;
  const char* backward_kind;
  std::int64_t calls;  // in a step
  std::int64_t forward_bytes, backward_bytes;
};

std::vector<Pass> passes(const Symbols& s) {
  const std::int64_t layers = s.L * s.m;
  const std::int64_t stream = s.b() * s.D / s.q();
  const std::int64_t hidden = s.b() * s.local_ffn();
  const std::int64_t logits = s.b() * s.padded_vocabulary() / s.T;
  const std::int64_t delta = s.dropout_mask_bytes;
  const bool gated = s.mlp_products == 3;
  // Over tp, bias and residual wait for the sum of the product, and then go into the norm behind them. The gradients of
  // the residual's two branches are added by the norm's.
  const bool in_norm = s.fused_epilogues && s.T > 1;
  const char* norm = in_norm ? "residual_norm" : "layer_norm";
  const std::int64_t norm_bytes = (in_norm ? 4 : 2) * s.p * stream;
  std::vector<Pass> list = {
      {"norms", norm, "layer_norm_grad", s.norms * layers, norm_bytes, 4 * s.p * stream},
  };
  if (s.fused_epilogues) {
    const std::int64_t biased = s.b() * ((s.local_heads() + 2 * s.local_kv_heads()) * s.H) + hidden + 2 * stream;
    list.push_back({"bias gradients", "column_sum", "column_sum", layers, 0, s.p * biased});
  } else {
    list.push_back({"bias, dropout, residual", "add", "add", s.norms * layers, (3 * s.p + delta) * stream,
                    (2 * s.p + delta) * stream});
  }
  // A product that applies it takes as long for it: its arithmetic outweighs the memory.
  list.push_back(
      {"activation", "gelu", "gelu_grad", layers, (gated ? 3 : 2) * s.p * hidden, (gated ? 5 : 3) * s.p * hidden});
  if (s.attention == AttentionStorage::materialised) {
    const std::int64_t scores = s.B * s.local_heads() * s.n() * s.S;
    const std::int64_t dropout = delta > 0 ? 2 * s.p + delta : 0;
    const std::int64_t forward = (2 * s.p + dropout) * scores;
    const std::int64_t again = s.recompute == Recompute::selective ? forward : 0;
    list.push_back({"softmax", "softmax", "softmax_grad", layers, forward, (3 * s.p + dropout) * scores + again});
  }
  if (s.recompute == Recompute::full) {
    for (Pass& pass : list) pass.backward_bytes += pass.forward_bytes;
  }
  list.push_back({"final norm", norm, "layer_norm_grad", s.m, norm_bytes, 4 * s.p * stream});
  // Maximum, sum and target are one pass, unless the sum has to wait for the maximum over tp.
  const bool in_one = s.fused_epilogues && s.T == 1;
  list.push_back({"cross entropy", in_one ? "row_softmax" : "row_sum_exp", "nll_grad", s.m,
                  (in_one ? 1 : 2) * s.p * logits, 2 * s.p * logits});
  list.push_back({"embedding", "embed", "embed_grad", s.m, 2 * s.p * stream, 3 * s.p * stream});
  return list;
}

/// Query-key pairs that the slowest rank's heads and sequences meet in ring step `step` of one layer.
std::int64_t slowest_pairs(const Symbols& s, std::int64_t step) {
  const std::int64_t pairs =
      step == 0 ? ring_step_pairs(s.layout, s.n(), 0, 0) : ring_step_pairs(s.layout, s.n(), 1, 0);
  // A materialised core computes all S^2 scores and masks half of them.
  const std::int64_t computed = s.attention == AttentionStorage::materialised ? s.n() * s.n() : pairs;
  return computed * s.B * s.local_heads();
}

/// Predicts with one profile and one set of symbols; each member adds its part to `time`.
class Predictor {
 public:
  Predictor(const Symbols& symbols, const HardwareProfile& profile, DType dtype)
      : s_(symbols), profile_(profile), dtype_(dtype) {}

  StepTime predict() {
    add_products();
    add_attention();
    add_passes();
    add_optimizer();
    for (const CommunicationItem& item : communication_items(s_)) {
      if (item.role != CommunicationRole::ring_kv && item.role != CommunicationRole::ring_kv_gradient) add(item);
    }
    for (const CommunicationTime& entry : time_.communication) {
      if (entry.seconds == 0) continue;
      const double call = entry.seconds / real(entry.item.calls.value_or(s_.L));
      const double loss = profile_.overlap_cost(call).lost_seconds / call;
      time_.slowdown_seconds += loss * (entry.seconds - entry.exposed_seconds);
    }
    return std::move(time_);
  }

 private:
  double layer_calls() const { return real(s_.L * s_.m); }

  void add_products() {
    for (const ProductItem& item : product_items(s_)) {
      const double call = product_seconds(item) + profile_.op_overhead_seconds;
      time_.compute.push_back({item.name, real(item.forward_calls) * call, real(item.backward_calls) * call});
    }
  }

  /// Compute of all ring steps, and what the hops of K and V, and of dK and dV, add to it.
  void add_attention() {
    const AttentionPairs pairs = attention_pairs(s_, 0);
    const double replays = real(pairs.forward / pairs.backward - 1);
    double forward = 0, backward = 0, exposed_forward = 0, exposed_kv = 0, exposed_gradient = 0;
    const double kv = hop_seconds(s_.p), gradient = hop_seconds(s_.p_travelling);
    const std::int64_t kept = 2 * s_.p * s_.b() * (s_.local_heads() + s_.local_kv_heads()) * s_.H;  // q, k, v, out
    for (std::int64_t step = 0; step < s_.R; ++step) {
      const std::int64_t met = slowest_pairs(s_, step);
      const double keys = real(met) / real(s_.B * s_.local_heads() * s_.n());
      const double f =
          profile_.attention_forward_seconds(dtype_, real(attention_forward_flops(s_, met)), real(met), keys) +
          profile_.op_overhead_seconds;
      const double g =
          profile_.attention_backward_seconds(dtype_, real(attention_backward_flops(s_, met)), real(met), keys) +
          (step == 0 ? profile_.far_seconds("attention_step_grad", real(kept)) : 0) + profile_.op_overhead_seconds;
      forward += f;
      backward += g;
      // While a step computes, the next K and V arrive; the dK and dV of the step before leave, but for the home
      // block's.
      const double kv_now = step + 1 < s_.R ? kv : 0;
      const double gradient_now = step >= 2 ? gradient : 0;
      exposed_forward += std::max(0.0, kv_now - f);
      const double hidden_kv = std::min(kv_now, g);
      exposed_kv += kv_now - hidden_kv;
      exposed_gradient += std::max(0.0, gradient_now - (g - hidden_kv));
    }
    if (s_.R > 1) exposed_gradient += gradient;  // the last hop home, behind nothing
    const double calls = layer_calls();
    time_.compute.push_back({"attention", calls * forward, calls * (backward + replays * forward)});
    for (const CommunicationItem& item : communication_items(s_)) {
      const bool is_kv = item.role == CommunicationRole::ring_kv;
      if (!is_kv && item.role != CommunicationRole::ring_kv_gradient) continue;
      const double exposed = !is_kv                             ? exposed_gradient
                             : item.phase == StepPhase::forward ? exposed_forward
                                                                : exposed_kv + replays * exposed_forward;
      time_.communication.push_back({item, real(*item.calls) * (is_kv ? kv : gradient), calls * exposed});
    }
  }

  double hop_seconds(std::int64_t bytes) const {
    if (s_.R == 1) return 0;
    const std::int64_t elements = 2 * s_.b() * s_.local_kv_heads() * s_.H;
    return profile_.collective_seconds(CollectiveKind::shift, static_cast<int>(s_.R), real(bytes * elements));
  }

  void add_passes() {
    for (const Pass& pass : passes(s_)) {
      const auto seconds = [&](const char* kind, std::int64_t bytes) {
        const double call = profile_.pass_seconds(kind, real(bytes));
        return real(pass.calls) * (call + profile_.op_overhead_seconds);
      };
      time_.compute.push_back({pass.name, seconds(pass.forward_kind, pass.forward_bytes),
                               seconds(pass.backward_kind, pass.backward_bytes)});
    }
  }

  /// Gradients are read; moments and master copies are read and written; so are weights, unless a master is read
  /// instead.
  void add_optimizer() {
    const std::int64_t elements = optimizer_elements_on_rank(s_), once = s_.p_gradient + s_.p_optimizer + s_.p_master;
    const std::int64_t twice = s_.p_optimizer + s_.p_master + (s_.p_master > 0 ? 0 : s_.p);
    time_.optimizer_seconds = profile_.pass_seconds("adamw", real(elements * (once + s_.p + twice))) +
                              profile_.far_seconds("adamw", real(elements * (once + s_.p)));
  }

  void add(const CommunicationItem& item) {
    const double calls = item.calls ? real(*item.calls) : real(s_.L);  // gradients: about a bucket per layer
    const bool in_place = item.role == CommunicationRole::gradients || item.role == CommunicationRole::weights;
    const Operands operands = in_place ? Operands::in_place : Operands::apart;
    const double call =
        profile_.collective_seconds(item.kind, item.group_size, real(item.payload_bytes) / calls, 1, operands);
    time_.communication.push_back({item, calls * call, exposed(item.role, calls, call)});
  }

  double exposed(CommunicationRole role, double calls, double call) const {
    switch (role) {
      case CommunicationRole::column_parallel_input_gradient:  // behind the weight gradients of QKV, or of up
      case CommunicationRole::column_parallel_input_again: {   // behind the data gradients of the same
        const double qkv = product_call_seconds({"query", "key and value"}), up = product_call_seconds({"up"});
        if (s_.norms == 1) return calls * std::max(0.0, call - qkv - up);  // a parallel block: one input for both
        return calls / 2 * (std::max(0.0, call - qkv) + std::max(0.0, call - up));
      }
      case CommunicationRole::head_input_gradient:
      case CommunicationRole::head_input_again:
        return calls * std::max(0.0, call - product_call_seconds({"head"}));
      case CommunicationRole::gradients:
        return exposed_buckets(calls * call, last_backward_seconds());
      case CommunicationRole::weights:  // each bucket's behind the update of the next
        return exposed_buckets(calls * call, time_.optimizer_seconds);
      default:
        return calls * call;
    }
  }

  /// Of `total` seconds in about a bucket per layer, what the compute beside them does not hide; never the last bucket.
  double exposed_buckets(double total, double beside) const {
    const double layers = real(s_.L);
    return std::max(total / layers, total - beside * (1 - 1 / layers));
  }

  /// Seconds of one forward call of these products: as long as their data, or weight, gradients take.
  double product_call_seconds(std::initializer_list<std::string_view> names) const {
    double seconds = 0;
    for (const ProductItem& item : product_items(s_)) {
      if (std::find(names.begin(), names.end(), item.name) != names.end()) {
        seconds += product_seconds(item);
      }
    }
    return seconds;
  }

  double product_seconds(const ProductItem& item) const {
    return profile_.product_seconds(dtype_, real(item.flops), real(item.largest * s_.p)) +
           profile_.far_seconds("matmul", real(item.weights * s_.p));
  }

  double last_backward_seconds() const {
    double seconds = 0;
    for (const ComputeTime& entry : time_.compute) seconds += entry.backward_seconds;
    return seconds / real(s_.m);
  }

  const Symbols& s_;
  const HardwareProfile& profile_;
  DType dtype_;
  StepTime time_;
};

}  // namespace

double StepTime::compute_seconds() const {
  double sum = optimizer_seconds;
  for (const ComputeTime& entry : compute) sum += entry.forward_seconds + entry.backward_seconds;
  return sum;
}

double StepTime::communication_seconds() const {
  double sum = 0;
  for (const CommunicationTime& entry : communication) sum += entry.seconds;
  return sum;
}

double StepTime::exposed_seconds() const {
  double sum = 0;
  for (const CommunicationTime& entry : communication) sum += entry.exposed_seconds;
  return sum;
}

double StepTime::seconds() const { return compute_seconds() + exposed_seconds() + slowdown_seconds; }

double StepTime::communication_to_compute() const { return communication_seconds() / compute_seconds(); }

StepTime step_time(const Symbols& symbols, const HardwareProfile& profile, DType dtype) {
  return Predictor(symbols, profile, dtype).predict();
}

}  // namespace annulus
