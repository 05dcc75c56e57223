#pragma once

#include "model/analytic/symbols.h"
#include "model/train_step.h"

namespace annulus {

/// The letters of a recorded step: what the closed form is asked with, to be held against the step's program.
Symbols symbols_of(const MeshAxes& mesh, const StepOptions& options);

}  // namespace annulus
