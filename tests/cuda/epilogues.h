#pragma once

#include <vector>

#include "runtime/ops/matmul.h"

namespace annulus::testing {

/// Every epilogue that a product may have.
inline std::vector<ProductEpilogue> all_epilogues() {
  using E = ProductEpilogue;
  std::vector<E> all;
  for (const E::Bias bias : {E::Bias::none, E::Bias::of_columns})
    for (const E::Addend addend : {E::Addend::none, E::Addend::operand, E::Addend::in_place})
      for (const E::Output output : {E::Output::as_operands, E::Output::wide})
        for (const E::Finish finish :
             {E::Finish::none, E::Finish::gelu, E::Finish::gelu_and_input, E::Finish::gelu_slope})
          for (const Activation activation : {Activation::gelu_tanh, Activation::gelu_erf})
            if (finish == E::Finish::none || addend == E::Addend::none)
              all.push_back({bias, addend, output, finish, activation});
  return all;
}

}  // namespace annulus::testing
