#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/analytic/symbols.h"

namespace annulus {

/// How the tp axis splits a parameter. No parameter is split over cp.
enum class ParameterSplit : std::uint8_t {
  tp,          ///< over all tp ranks
  kv,          ///< over min(G, T) of them, and the same on the T / min(G, T) others
  replicated,  ///< whole on each; under SP it meets only this rank's rows, so that its gradient is partial over tp
};

/// Parameters of one role, of all layers together.
struct ParameterItem {
  std::string name;
  std::int64_t elements = 0;  ///< global, without padding
  std::int64_t padding = 0;   ///< global, of the vocabulary
  ParameterSplit split = ParameterSplit::tp;
  bool decays = false;  ///< weight decay applies: to matrices and tables
};

/// Every parameter of the model, by role. Section 1; the notes' 1.1, corrected (errata E-1.1a, E-1.1b).
std::vector<ParameterItem> parameter_items(const Symbols& symbols);

/// Parameters of the model, without padding. Section 1.
std::int64_t parameters(const Symbols& symbols);

/// Parameters without embedding tables (token, position), with the head: those of 6N. Errata E-4ess.
std::int64_t parameters_in_products(const Symbols& symbols);

/// Elements of an item that one tp rank holds, padding included.
std::int64_t elements_on_rank(const ParameterItem& item, const Symbols& symbols);

/// Parameters that one rank holds, padding included; of one stage, so P = 1. Section 1; the notes' (7.10), corrected
/// (errata E-7.10: norms, row-parallel biases and positions are replicated, kv heads where G < T).
std::int64_t parameters_on_rank(const Symbols& symbols);

}  // namespace annulus
