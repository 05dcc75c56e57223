#include "model/analytic/symbols.h"

#include <fmt/format.h>

#include "runtime/core/error.h"

namespace annulus {
namespace {

void divides(const char* name, std::int64_t size, const char* axis, std::int64_t ranks) {
  if (ranks >= 1 && size % ranks == 0) return;
  throw ShapeError(fmt::format("{}={} cannot be split over {}={}; use a multiple", name, size, axis, ranks));
}

}  // namespace

void check(const Symbols& symbols) {
  divides("A", symbols.A, "G", symbols.G);
  divides("A", symbols.A, "T", symbols.T);
  divides("F", symbols.F, "T", symbols.T);
  divides("T", symbols.T, "min(G, T)", symbols.tk());
  divides("G", symbols.G, "min(G, T)", symbols.tk());
  divides("L", symbols.L, "P", symbols.P);
  check_ring_layout(symbols.layout, static_cast<int>(symbols.R), symbols.S);
  divides("rows b", symbols.b(), "T under sequence parallelism", symbols.q());
}

}  // namespace annulus
