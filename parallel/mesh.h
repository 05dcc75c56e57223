#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "runtime/core/communicator.h"
#include "runtime/program/axes.h"

namespace annulus {

/// Sizes of the parallelisms. Ranks are numbered inner to outer tp, cp, dp, as Megatron's tp-cp-dp.
struct MeshShape {
  int dp = 1;        ///< data parallel replicas
  int cp = 1;        ///< context parallel: the ring
  int tp = 1;        ///< tensor parallel
  int kv_heads = 0;  ///< kv heads of the model; 0: as many as query heads

  int ranks() const { return dp * cp * tp; }
};

/// The atomic axes, outer to inner. tp is the product tk x tr: kv heads are sharded over tk and replicated over tr, so
/// that grouped queries with fewer kv heads than tp are ordinary placements.
namespace mesh_axis {
inline constexpr int dp = 0, cp = 1, tk = 2, tr = 3;
inline constexpr AxisSet kData = AxisSet(dp) | AxisSet(cp);
inline constexpr AxisSet kTensor = AxisSet(tk) | AxisSet(tr);
inline constexpr AxisSet kAll = kData | kTensor;
}  // namespace mesh_axis

/// The mesh as `global_rank` sees it. Throws ConfigError where sizes are not positive, or tp and the kv heads do not
/// divide.
MeshAxes make_mesh(const MeshShape& shape, int global_rank);

/// `dp 0 cp 1 tp 1`, for messages.
std::string coordinates(const MeshAxes& mesh);

/// The communicators of one rank, one for each set of axes, made when first asked for: a collective call over the
/// world, so all ranks ask for the same sets in the same order (programs are the same on all ranks, and are prepared in
/// order).
class Groups {
 public:
  Groups(Communicator& world, MeshAxes mesh) : world_(world), mesh_(std::move(mesh)) {}
  Communicator& over(AxisSet axes);
  /// The same as a function, while this object lives.
  std::function<Communicator&(AxisSet)> lookup() {
    return [this](AxisSet axes) -> Communicator& { return over(axes); };
  }
  Communicator& world() { return world_; }

 private:
  Communicator& world_;
  MeshAxes mesh_;
  std::map<AxisSet, std::unique_ptr<Communicator>> groups_;
};

}  // namespace annulus
