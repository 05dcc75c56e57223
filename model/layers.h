#pragma once

#include "model/config.h"
#include "model/parameters.h"
#include "parallel/vocabulary.h"

namespace annulus {

/// What a layer needs to record itself: the recorder, the weights, the conversions of tensor parallelism, and what is
/// known of the rows.
struct ModelContext {
  Recorder& recorder;
  ParameterTable& parameters;
  TensorParallel tensor_parallel;
  const ModelConfig& config;
  std::int64_t sequences = 0;  ///< local
  std::uint64_t seed = 0;      ///< of dropout
  bool training = true;        ///< dropout is on

  ValueId row_ids = kNoValue;  ///< i32 [rows, 2]: of the rows that attention sees
  ValueId row_ids_between =
      kNoValue;  ///< of the rows between `leave` and `enter`: a part of them under sequence parallelism
  ValueId step = kNoValue;

  double rate(double configured) const { return training ? configured : 0; }
  /// Dropout of activations between `leave` and `enter`, with the mask of the current scope.
  ValueId dropout_between(ValueId x, double configured) {
    return recorder.dropout(x, row_ids_between, step, rate(configured), seed);
  }
};

/// Linear layers, Megatron-style: y = x w + b with w [in, out...] sharded by its last dim over `axes` (column) or by
/// its first dim over tp (row; its result is partial until `leave`, and its bias is added behind that).
ValueId column_linear(ModelContext& context, const std::string& name, ValueId x, const Shape& weight, AxisSet axes);
ValueId row_linear(ModelContext& context, const std::string& name, ValueId x, const Shape& weight);
/// Layer norm with gamma and beta [D], replicated.
ValueId norm(ModelContext& context, const std::string& name, ValueId x);

/// Multi-head causal attention, heads over tp: x [rows, D] (normed) -> [rows, D] before the residual.
ValueId attention_layer(ModelContext& context, ValueId x);
/// D -> F -> D with GELU; F over tp.
ValueId mlp_layer(ModelContext& context, ValueId x);

}  // namespace annulus
