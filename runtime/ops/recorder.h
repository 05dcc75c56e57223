#pragma once

#include <functional>
#include <optional>

#include "runtime/ops/op_table.h"

namespace annulus {

/// A collective, or a slice, that model code asks for.
struct CollectiveRequest {
  OpKind kind = OpKind::all_reduce;
  AxisSet axes;
  Reduction reduction = Reduction::sum;  ///< of an all-reduce
  int dim = 0;                           ///< of the others
};
/// Replaces a request, or drops it by returning nothing: tests record wrong shardings with it, on purpose.
using CollectiveFilter = std::function<std::optional<CollectiveRequest>(const CollectiveRequest&)>;

/// The typed calls that model code makes: each records one op of the program and returns its value. Collectives over
/// axes of one rank record nothing and return their operand.
class Recorder {
 public:
  explicit Recorder(Program& program, CollectiveFilter filter = {}) : program_(program), filter_(std::move(filter)) {}
  Program& program() { return program_; }
  const MeshAxes& mesh() const { return program_.mesh(); }
  const ValueType& type(ValueId id) const { return program_.type(id); }

  /// x [m, k] times w [k, n...].
  ValueId matmul(ValueId x, ValueId w) { return product(Matmul::Form::nn, x, w); }
  /// x [m, k] times the transpose of w [n, k].
  ValueId matmul_transposed(ValueId x, ValueId w) { return product(Matmul::Form::nt, x, w); }
  ValueId add(ValueId a, ValueId b) { return one<Add>({a, b}); }
  ValueId add_bias(ValueId x, ValueId bias) { return one<AddBias>({x, bias}); }
  ValueId gelu(ValueId x, Activation activation) { return one<Gelu>({x}, activation); }
  /// Mean and deviation over the columns of x; returns the normalised value alone.
  ValueId layer_norm(ValueId x, ValueId gamma, ValueId beta, double epsilon);
  /// Rows `ids` of a table [V, D] that may be sharded by rows, which makes the result partial.
  ValueId embed(ValueId ids, ValueId table);
  /// x with the mask of the stream named after the current scope and `name`; x itself where the rate is 0.
  ValueId dropout(ValueId x, ValueId row_ids, ValueId step, double rate, std::uint64_t seed);
  struct AttentionResult {
    ValueId out, lse;
  };
  AttentionResult attention(ValueId q, ValueId kv, ValueId row_ids, ValueId step, AttentionShape shape,
                            AttentionAxes axes, double dropout_rate, std::uint64_t seed);
  ValueId row_max(ValueId logits, std::int64_t vocabulary) { return one<RowMax>({logits}, shard(logits, vocabulary)); }
  ValueId row_sum_exp(ValueId logits, ValueId max, std::int64_t vocabulary) {
    return one<RowSumExp>({logits, max}, shard(logits, vocabulary));
  }
  ValueId row_target(ValueId logits, ValueId targets, std::int64_t vocabulary) {
    return one<RowTarget>({logits, targets}, shard(logits, vocabulary));
  }
  ValueId nll(ValueId logits, ValueId sum_exp, ValueId max, ValueId target, ValueId targets, ValueId weights,
              std::int64_t vocabulary, ValueId gradient_weights = kNoValue) {
    std::vector<ValueId> inputs{logits, sum_exp, max, target, targets, weights};
    if (gradient_weights == kNoValue) return one<Nll>(std::move(inputs), shard(logits, vocabulary));
    inputs.push_back(gradient_weights);
    return one<Nll>(std::move(inputs), shard(logits, vocabulary), Nll::GradientWeights::separate);
  }

  ValueId all_reduce(ValueId x, AxisSet axes, Reduction reduction = Reduction::sum) {
    return collective(x, {OpKind::all_reduce, axes, reduction, 0});
  }
  ValueId all_gather(ValueId x, AxisSet axes, int dim) {
    return collective(x, {OpKind::all_gather, axes, Reduction::sum, dim});
  }
  ValueId reduce_scatter(ValueId x, AxisSet axes, int dim) {
    return collective(x, {OpKind::reduce_scatter, axes, Reduction::sum, dim});
  }
  ValueId slice(ValueId x, AxisSet axes, int dim) { return collective(x, {OpKind::slice, axes, Reduction::sum, dim}); }

 private:
  ValueId collective(ValueId x, CollectiveRequest request);
  template <class Type, class... Arguments>
  ValueId one(std::vector<ValueId> inputs, Arguments&&... arguments) {
    return program_.emit_one(std::make_shared<Type>(std::forward<Arguments>(arguments)...), std::move(inputs));
  }
  ValueId product(Matmul::Form form, ValueId a, ValueId b) { return one<Matmul>({a, b}, form); }
  VocabularyShard shard(ValueId logits, std::int64_t vocabulary) const {
    return {shard_offset(mesh(), type(logits), 1), vocabulary};
  }

  Program& program_;
  CollectiveFilter filter_;
};

}  // namespace annulus
