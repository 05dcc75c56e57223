#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/core/communicator.h"
#include "runtime/program/placement.h"

namespace annulus {

/// Names the kinds; defined in runtime/ops/op_table.h. Nothing in program/ knows a kind by name.
enum class OpKind : std::uint16_t;

using ValueId = std::int32_t;
inline constexpr ValueId kNoValue = -1;

class GradientContext;

/// What one op costs this rank, whatever the device: exact counts.
struct Work {
  double flops = 0;  ///< of matrix products and attention, 2 per multiply-add; the rest is counted as bytes
  std::int64_t attended_pairs = 0;  ///< query-key pairs of attention, times heads and sequences
  std::int64_t bytes_read = 0;
  std::int64_t bytes_written = 0;
};

/// A collective op, as the executor carries it out and the cost model prices it.
struct CollectiveCall {
  CollectiveKind kind = CollectiveKind::all_reduce;
  AxisSet axes;
  Reduction reduction = Reduction::sum;
  int dim = 0;       ///< gathered or scattered
  int distance = 0;  ///< of a shift
};

/// Output `output` lives in the storage of input `input`, `offset` elements from where that begins. The input must not
/// be read afterwards under its old name, unless the op is a view.
struct Alias {
  int output = 0;
  int input = 0;
  std::int64_t offset = 0;
};

/// One op kind with its attributes: immutable, shared by the ops and programs that use it.
///
/// A kind answers every question below, so that a new one does not compile until it has a placement rule, a shape rule,
/// a gradient and a cost. Devices add a kernel through the closed list in runtime/ops/op_table.h.
class OpDefinition {
 public:
  using Types = std::span<const ValueType>;
  using AxisPlacements = std::span<const Placement>;

  virtual ~OpDefinition() = default;
  virtual OpKind kind() const = 0;
  virtual std::string_view name() const = 0;
  /// Attributes that are equal on all ranks, for dumps and for the hash of the communication order.
  virtual std::string attributes() const { return {}; }

  /// Placement rule of a kind that treats axes one by one: placements of the outputs on `axis` from those of the
  /// inputs, or nothing, which refuses. Total: whatever is not allowed is refused. `types` gives the inputs on all
  /// axes.
  virtual std::optional<std::vector<Placement>> place(const MeshAxes& mesh, int axis, AxisPlacements inputs,
                                                      Types types) const = 0;
  /// Element types and local shapes of the outputs (placements are filled in by the caller). Throws ShapeError.
  virtual std::vector<ValueType> infer(const MeshAxes& mesh, Types inputs) const = 0;
  /// Records the gradient of this op. Throws InternalError for kinds that only occur behind differentiation.
  virtual void gradient(GradientContext& context) const = 0;
  virtual Work work(Types inputs, Types outputs) const = 0;

  /// The collective that this op is, if it is one.
  virtual std::optional<CollectiveCall> collective() const { return std::nullopt; }
  virtual std::vector<Alias> aliases() const { return {}; }
  /// Linear in its first input, with replicated weights: a partial gradient may pass through it.
  virtual bool is_linear() const { return false; }
  /// So many inputs, the first ones (and the outputs that alias them), lie one after another in memory, so that one
  /// call carries them all.
  virtual std::size_t contiguous_inputs() const { return 0; }
  /// Does nothing: its output is part of what its inputs are. Whoever overwrites the one makes the other's values
  /// stale.
  virtual bool is_view() const { return false; }
};

using OpPointer = std::shared_ptr<const OpDefinition>;

/// Which part of a step an op belongs to.
enum class Phase : std::uint8_t { forward, backward, reduction, update };
inline constexpr std::size_t kPhases = 4;
std::string_view name_of(Phase phase);

/// An op kind applied to values.
struct Op {
  OpPointer definition;
  std::vector<ValueId> inputs;
  std::vector<ValueId> outputs;
  std::string scope;  ///< the model's, as in `layers.3.attention.qkv`
  Phase phase = Phase::forward;
  int segment = 0;
};

}  // namespace annulus
