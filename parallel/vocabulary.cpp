#include "parallel/vocabulary.h"

namespace annulus {

std::int64_t padded_vocabulary(std::int64_t vocabulary, std::int64_t multiple, int tp) {
  const std::int64_t step = multiple * tp;
  return (vocabulary + step - 1) / step * step;
}

ValueId vocabulary_parallel_loss(Recorder& recorder, ValueId logits, ValueId targets, ValueId weights,
                                 std::int64_t vocabulary, ValueId gradient_weights) {
  const AxisSet tensor = mesh_axis::kTensor;
  const ValueId max = recorder.all_reduce(recorder.row_max(logits, vocabulary), tensor, Reduction::max);
  const ValueId sum_exp = recorder.all_reduce(recorder.row_sum_exp(logits, max, vocabulary), tensor);
  const ValueId target = recorder.all_reduce(recorder.row_target(logits, targets, vocabulary), tensor);
  return recorder.nll(logits, sum_exp, max, target, targets, weights, vocabulary, gradient_weights);
}

}  // namespace annulus
