#pragma once

#include <utility>

#include "runtime/ops/attention.h"
#include "runtime/ops/bucket.h"
#include "runtime/ops/collectives.h"
#include "runtime/ops/cross_entropy.h"
#include "runtime/ops/elementwise.h"
#include "runtime/ops/embed.h"
#include "runtime/ops/layer_norm.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/optimizer.h"

namespace annulus {

/// Calls `visitor` with the compute op under its own class: a device whose visitor lacks an overload for one of the
/// kinds does not compile. Throws InternalError for collectives, views and composites, which no device runs.
template <class Visitor>
decltype(auto) visit_compute(const OpDefinition& definition, Visitor&& visitor) {
  switch (definition.kind()) {
#define ANNULUS_KIND(enumerator, type) \
  case OpKind::enumerator:             \
    return std::forward<Visitor>(visitor)(static_cast<const type&>(definition));
    ANNULUS_COMPUTE_KINDS(ANNULUS_KIND)
#undef ANNULUS_KIND
    default:
      throw InternalError(std::string(definition.name()) + " is not a compute op");
  }
}

/// The op as `Type`, or null where it is of another kind.
template <class Type>
const Type* as(const OpDefinition& definition) {
  return definition.kind() == Type::kKind ? static_cast<const Type*>(&definition) : nullptr;
}

}  // namespace annulus
