#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "runtime/core/tensor.h"

namespace annulus {

/// What kernels have really done: counted where products are called and pairs are visited, never by the cost rules.
struct WorkCounters {
  double product_flops = 0;         ///< += 2 m n k at each matrix product
  std::int64_t attended_pairs = 0;  ///< += query-key pairs visited, per head and sequence, forward and backward alike

  WorkCounters& operator+=(const WorkCounters& other) {
    product_flops += other.product_flops;
    attended_pairs += other.attended_pairs;
    return *this;
  }
  WorkCounters& operator-=(const WorkCounters& other) {
    product_flops -= other.product_flops;
    attended_pairs -= other.attended_pairs;
    return *this;
  }
};

/// The operands of one call of a kernel. An output that aliases an input has its address.
struct KernelArguments {
  std::span<const Tensor> inputs;
  std::span<const Tensor> outputs;
  std::byte* workspace = nullptr;
  std::int64_t workspace_bytes = 0;
  WorkCounters* counters = nullptr;
};

}  // namespace annulus
