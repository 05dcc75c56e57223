#include "runtime/program/axes.h"

namespace annulus {

AxisSet MeshAxes::all() const {
  AxisSet set;
  for (int a = 0; a < count(); ++a) set = set | AxisSet(a);
  return set;
}

AxisSet MeshAxes::live(AxisSet set) const {
  AxisSet found;
  for (int a = 0; a < count(); ++a)
    if (set.contains(a) && (*this)[a].size > 1) found = found | AxisSet(a);
  return found;
}

int MeshAxes::size(AxisSet set) const {
  int product = 1;
  for (int a = 0; a < count(); ++a)
    if (set.contains(a)) product *= (*this)[a].size;
  return product;
}

int MeshAxes::index(AxisSet set) const {
  int index = 0;
  for (int a = 0; a < count(); ++a)
    if (set.contains(a)) index = index * (*this)[a].size + (*this)[a].coordinate;
  return index;
}

std::string MeshAxes::label(AxisSet set) const {
  AxisSet left = live(set);
  std::string text;
  for (int a = 0; a < count(); ++a) {
    if (!left.contains(a)) continue;
    std::string name = (*this)[a].name;
    AxisSet taken(a);
    for (const Alias& alias : aliases)
      if (alias.axes.contains(a) && left.contains(live(alias.axes))) name = alias.name, taken = live(alias.axes);
    text += (text.empty() ? "" : "+") + name;
    left = left - taken;
  }
  return text.empty() ? "none" : text;
}

}  // namespace annulus
