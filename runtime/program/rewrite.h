#pragma once

#include <functional>

#include "runtime/program/program.h"

namespace annulus {

/// Repeats the chosen forward ops in front of their first backward reader, so that their results need not be stored in
/// between: memory against work or traffic. Sequence parallelism gathers its inputs again this way (Korthikanti et al.,
/// arXiv 2205.05198, section 4.2.2). Results are the same bits.
void recompute(Program& program, const std::function<bool(const Op&)>& chosen);

/// Replaces each op that `expand` handles: it emits the replacement, whose last ops make the old outputs,
/// and returns true; or returns false, and the op stays.
void lower(Program& program, const std::function<bool(Program&, const Op&)>& expand);

}  // namespace annulus
