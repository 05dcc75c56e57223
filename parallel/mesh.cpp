#include "parallel/mesh.h"

#include <fmt/format.h>

#include <algorithm>

#include "runtime/core/error.h"

namespace annulus {

MeshAxes make_mesh(const MeshShape& shape, int global_rank) {
  if (shape.dp < 1 || shape.cp < 1 || shape.tp < 1)
    throw ConfigError(fmt::format("mesh dp={} cp={} tp={}: each must be at least 1", shape.dp, shape.cp, shape.tp));
  const int tk = shape.kv_heads == 0 ? shape.tp : std::min(shape.kv_heads, shape.tp);
  if (shape.tp % tk != 0 || (shape.kv_heads != 0 && shape.kv_heads % tk != 0))
    throw ConfigError(
        fmt::format("kv_heads={} cannot be shared by tp={}; use a tp that divides kv_heads, or is a multiple of it",
                    shape.kv_heads, shape.tp));
  MeshAxes mesh;
  mesh.axes = {{"dp", shape.dp}, {"cp", shape.cp}, {"tk", tk}, {"tr", shape.tp / tk}};
  mesh.aliases = {{"tp", mesh_axis::kTensor}};
  for (auto axis = mesh.axes.rbegin(); axis != mesh.axes.rend(); ++axis) {
    axis->coordinate = global_rank % axis->size;
    global_rank /= axis->size;
  }
  return mesh;
}

std::string coordinates(const MeshAxes& mesh) {
  return fmt::format("dp {} cp {} tp {}", mesh[mesh_axis::dp].coordinate, mesh[mesh_axis::cp].coordinate,
                     mesh.index(mesh_axis::kTensor));
}

Communicator& Groups::over(AxisSet axes) {
  std::unique_ptr<Communicator>& group = groups_[mesh_.live(axes)];
  if (!group) group = world_.split(mesh_.index(mesh_.all() - axes), mesh_.index(axes));
  return *group;
}

}  // namespace annulus
