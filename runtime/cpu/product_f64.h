#pragma once

#include "runtime/execute/kernel.h"
#include "runtime/ops/matmul.h"

namespace annulus {

/// What is added to a product; null for nothing.
template <class T>
struct Added {
  const T* bias = nullptr;    ///< [n], to every row
  const T* addend = nullptr;  ///< [m, n], c itself or elsewhere
};

/// Matrix products of doubles, which oneDNN lacks. Not OpenBLAS's: its serial build hands two threads the same packing
/// buffer, so that ranks that are threads, or threads of one rank, now and then got each other's numbers.
/// c[m, n] = op(a) op(b) + added, with a workspace of `product_f64_workspace_bytes`. Results do not depend on the
/// number of threads.
void product_f64(Matmul::Form form, const Matmul::Sizes& sizes, const double* a, const double* b, double* c,
                 const Added<double>& added, std::byte* workspace);
std::int64_t product_f64_workspace_bytes();

}  // namespace annulus
