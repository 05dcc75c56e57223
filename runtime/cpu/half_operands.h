#pragma once

#include <algorithm>
#include <functional>
#include <span>
#include <type_traits>
#include <vector>

#include "runtime/execute/kernel.h"
#include "runtime/ops/op_table.h"

namespace annulus {

/// Kinds whose kernels take halves as they are. Those of all others compute in f32 or f64: their operands are widened
/// beforehand, and their results rounded.
template <class Kind>
inline constexpr bool kTakesHalves =
    std::is_same_v<Kind, Slice> || std::is_same_v<Kind, Cast> || std::is_same_v<Kind, Zero> ||
    std::is_same_v<Kind, Embed> || std::is_same_v<Kind, AdamW>;

/// Whether any operand, or type of one, is a half.
template <class Operand>
bool has_halves(std::span<const Operand> operands) {
  return std::any_of(operands.begin(), operands.end(), [](const Operand& operand) { return is_half(operand.dtype); });
}
/// The types with f32 for every half.
std::vector<ValueType> widened(OpDefinition::Types types);

/// Scratch memory for wide copies of an op's halves.
std::int64_t widening_bytes(const OpDefinition& op, OpDefinition::Types inputs, OpDefinition::Types outputs);

/// Widens the halves among the inputs into the workspace, calls `run` with wide operands and the rest of the workspace,
/// and rounds what it has made to the outputs that are halves.
void run_wide(const OpDefinition& op, const KernelArguments& arguments,
              const std::function<void(const KernelArguments&)>& run);

}  // namespace annulus
