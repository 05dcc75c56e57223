#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/analytic/symbols.h"

namespace annulus {

/// Which ranks of tp a group spans.
enum class TpPart : std::uint8_t { none, tk, tr, all };

/// A set of mesh axes: those of more than one rank, as in "dp+cp" (CommunicationItem::axes), and the ranks of a group.
struct GroupAxes {
  std::string name;  ///< empty where no axis has more than one rank
  int size = 1;
};
GroupAxes group_axes(const Symbols& symbols, std::int64_t dp, std::int64_t cp, TpPart part);

/// Parameters whose gradients travel together: summed over the same ranks; and under ZeRO-1 split over as many, and
/// with weight decay or without.
struct GradientGroup {
  GroupAxes reduced;          ///< the ranks whose shares make up a gradient
  std::int64_t elements = 0;  ///< on one rank, padding of the vocabulary included

  /// One rank's part of the elements, divided evenly over `reduced`.
  std::int64_t part() const { return (elements + reduced.size - 1) / reduced.size; }
};
std::vector<GradientGroup> gradient_groups(const Symbols& symbols);

/// Parameters whose optimizer state one rank has: all of its own, or under ZeRO-1 its part of each group. Section 3.1,
/// where g is W R: parameters whose gradients are summed over ranks of tp as well are divided over these, too.
std::int64_t optimizer_elements_on_rank(const Symbols& symbols);

}  // namespace annulus
